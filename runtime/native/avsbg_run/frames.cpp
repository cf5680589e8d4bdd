#include <algorithm>
#include <thread>

#include "media.h"

extern "C" {
#include <libavutil/imgutils.h>
#include <libavutil/pixdesc.h>
}

namespace avsbg_run {
namespace {

// Fixed-rate files store times rounded to their time base, and drop the odd last frame; a cut file misses more.
const Fraction kMissing(1, 2);

bool is_full_range(const AVFrame& frame) {
  const AVPixFmtDescriptor* const format = av_pix_fmt_desc_get(static_cast<AVPixelFormat>(frame.format));
  const bool is_jpeg = format != nullptr && std::string(format->name).rfind("yuvj", 0) == 0;
  return is_jpeg || frame.color_range == AVCOL_RANGE_JPEG;
}

// Whether a file that states its end for all tracks together reaches it; some muxers of ASF count the begin once more.
bool reaches_end(const VideoInfo& video) {
  if (!video.end_is_of_file) return false;
  const Container container(video.path);
  const Owned<AVPacket> packet(av_packet_alloc());
  Fraction last(0);
  while (av_read_frame(container.format(), packet.get()) >= 0) {
    const Fraction unit = fraction(container.stream(packet->stream_index)->time_base);
    if (packet->pts != AV_NOPTS_VALUE) last = std::max(last, Fraction(packet->pts + packet->duration) * unit);
    av_packet_unref(packet.get());
  }
  return last + video.start >= *video.stated_end - kMissing;
}

}  // namespace

Fraction frame_length(const AVFrame& frame, AVRational unit, std::optional<Fraction> mean_rate) {
#if LIBAVUTIL_VERSION_MAJOR >= 58
  const std::int64_t ticks = frame.duration;
#else
  const std::int64_t ticks = frame.pkt_duration;
#endif
  if (ticks > 0) return Fraction(ticks) * fraction(unit);
  return mean_rate && *mean_rate > Fraction(0) ? Fraction(1) / *mean_rate : Fraction(0);
}

FramePtr reformat(const AVFrame& frame, int width, int height, AVPixelFormat format) {
  FramePtr result(av_frame_alloc(), FreeAv());
  result->format = format;
  result->width = width;
  result->height = height;
  if (av_frame_get_buffer(result.get(), 0) < 0) throw std::bad_alloc();
  const Owned<SwsContext> scaler(sws_getContext(frame.width, frame.height, static_cast<AVPixelFormat>(frame.format), width,
                                                height, format, SWS_BILINEAR, nullptr, nullptr, nullptr));
  if (!scaler) throw MediaError("frames of this file's pixel format cannot be converted.");
  // BT.2020 with constant luminance (10) is BT.2020 to swscale.
  const int matrix = frame.colorspace == AVCOL_SPC_BT2020_CL ? AVCOL_SPC_BT2020_NCL : frame.colorspace;
  const int* const coefficients = sws_getCoefficients(matrix);
  const bool to_rgb = format == AV_PIX_FMT_RGB24;
  sws_setColorspaceDetails(scaler.get(), coefficients, is_full_range(frame), coefficients,
                           to_rgb ? 1 : is_full_range(frame), 0, 1 << 16, 1 << 16);
  sws_scale(scaler.get(), frame.data, frame.linesize, 0, frame.height, result->data, result->linesize);
  result->colorspace = frame.colorspace;
  result->color_range = frame.color_range;
  result->pts = frame.pts;
  return result;
}

std::vector<std::uint8_t> displayed(const AVFrame& frame, const VideoInfo& video) {
  const Orientation turned = orientation_of(frame, video.orientation);
  // A frame may be turned in another way than the first was.
  const int stored_width = turned.transposed ? video.height : video.width;
  const int stored_height = turned.transposed ? video.width : video.height;
  FramePtr fitting;  // a frame in the size that the video began with, if that has changed
  const AVFrame* source = &frame;
  if (frame.width != stored_width || frame.height != stored_height) {
    fitting = reformat(frame, stored_width, stored_height, static_cast<AVPixelFormat>(frame.format));
    source = fitting.get();
  }
  const FramePtr rgb = reformat(*source, stored_width, stored_height, AV_PIX_FMT_RGB24);
  std::vector<std::uint8_t> pixels(3 * static_cast<std::size_t>(video.width) * static_cast<std::size_t>(video.height));
  std::uint8_t* out = pixels.data();
  for (int y = 0; y < video.height; ++y) {
    for (int x = 0; x < video.width; ++x) {
      const int row = turned.flipped_y ? video.height - 1 - y : y, column = turned.flipped_x ? video.width - 1 - x : x;
      const int p = turned.transposed ? row : column, q = turned.transposed ? column : row;
      const std::uint8_t* const from = rgb->data[0] + q * rgb->linesize[0] + 3 * p;
      *out++ = from[0];
      *out++ = from[1];
      *out++ = from[2];
    }
  }
  return pixels;
}

std::vector<std::pair<Place, Fraction>> last_places(Places& places, std::int64_t number, const Fraction& end, int least) {
  std::vector<std::pair<Place, Fraction>> found;
  for (;; ++number) {
    const Place place = places[number];
    if ((place.phase == 0 && place.second < least) || place.begin + Fraction(1, 2) <= end) {
      found.emplace_back(place, std::max(Fraction(0), std::min(Fraction(1), end - place.begin)));
    } else if (place.begin > end + Fraction(1)) {  // not sooner: deadlines rounded to frames are in another order than begins
      return found;
    }
  }
}

FrameChooser::FrameChooser(const VideoInfo& video, const Places& places, Damage* damage)
    : video_(video), container_(video, damage), places_(places), damage_(damage),
      unit_(container_.stream(video.video.index)->time_base) {
  container_.open_decoder(video.video.index, std::min(16U, std::max(1U, std::thread::hardware_concurrency())));
}

std::int64_t FrameChooser::last_tick(std::int64_t number) {
  return ((video_.start + places_[number].deadline) / fraction(unit_)).floor();
}

std::optional<ChosenFrame> FrameChooser::next() {
  const auto time = [&] { return Fraction(last_->pts) * fraction(unit_) - video_.start; };
  while (!ended_) {
    if (coming_) {
      // One place at a time: a step of the clock may span any number of them.
      if (last_ && coming_->pts > limit_) {
        ChosenFrame chosen{number_, places_[number_], time(), Fraction(1), last_};
        limit_ = last_tick(++number_);
        return chosen;
      }
      last_ = std::move(coming_);
    }
    if (const std::optional<Decoded> decoded = container_.next()) {
      if (!decoded->has_time()) throw MediaError(video_.path + " has a frame without a time stamp.");
      coming_ = decoded->frame;
      if (!last_) limit_ = last_tick(0);
    } else {
      coming_.reset();
      end();
    }
  }
  if (rest_.empty()) return std::nullopt;
  const auto [place, length] = rest_.front();
  rest_.pop_front();
  return ChosenFrame{number_++, place, time(), length, last_};
}

// Finds the places that count after the last frame.
void FrameChooser::end() {
  if (!last_) throw MediaError(video_.path + " has a video track without a single picture.");
  const Fraction end = Fraction(last_->pts) * fraction(unit_) - video_.start + frame_length(*last_, unit_, video_.mean_rate);
  if (video_.stated_end && video_.start + end < *video_.stated_end - kMissing && !reaches_end(video_)) {
    if (damage_ == nullptr) {
      throw MediaError(video_.path + " is truncated: it states that it ends at " +
                       std::to_string(video_.stated_end->value()) + " s, but its frames do at " +
                       std::to_string((video_.start + end).value()) + " s.");
    }
    damage_->cut_short = true;
  }
  for (auto& one : last_places(places_, number_, end, 1)) rest_.push_back(one);
  ended_ = true;
}

}  // namespace avsbg_run
