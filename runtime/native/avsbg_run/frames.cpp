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

Fraction frame_length(const AVFrame& frame, const AVStream* stream) {
#if LIBAVUTIL_VERSION_MAJOR >= 58
  const std::int64_t ticks = frame.duration;
#else
  const std::int64_t ticks = frame.pkt_duration;
#endif
  if (ticks > 0) return Fraction(ticks) * Fraction(stream->time_base.num, stream->time_base.den);
  const AVRational rate = stream->avg_frame_rate;
  return rate.num > 0 && rate.den > 0 ? Fraction(rate.den, rate.num) : Fraction(0);
}

}  // namespace

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

FrameChooser::FrameChooser(const VideoInfo& video, int clip_seconds, double offset)
    : video_(video), container_(video.path), clip_seconds_(clip_seconds), offset_(Fraction::of(offset)) {
  container_.open_decoder(video.video.index, std::min(16U, std::max(1U, std::thread::hardware_concurrency())));
}

Fraction FrameChooser::deadline(std::int64_t second) const {
  if (!video_.rate || video_.rate->round() == 0) return Fraction(second) + offset_;
  const std::int64_t clip = second - second % clip_seconds_;
  const std::int64_t index = ((Fraction(second - clip) + offset_) * Fraction(video_.rate->round())).floor();
  // Half a frame of slack: a stored time may be rounded either way.
  return Fraction(clip) + (Fraction(index) + Fraction(1, 2)) / *video_.rate;
}

std::int64_t FrameChooser::last_tick(std::int64_t second) const {
  const AVRational unit = container_.stream(video_.video.index)->time_base;
  return ((video_.start + deadline(second)) / Fraction(unit.num, unit.den)).floor();
}

std::optional<ChosenFrame> FrameChooser::next() {
  const AVStream* const stream = container_.stream(video_.video.index);
  const Fraction unit(stream->time_base.num, stream->time_base.den);
  while (!ended_) {
    if (coming_) {
      // One second at a time: a step of the clock may span any number of them.
      if (last_ && coming_->pts > limit_) {
        ChosenFrame chosen{second_, Fraction(last_->pts) * unit - video_.start, Fraction(1), last_};
        limit_ = last_tick(++second_);
        return chosen;
      }
      last_ = std::move(coming_);
    }
    int index = -1;
    coming_ = container_.next(index);
    if (coming_) {
      if (coming_->pts == AV_NOPTS_VALUE) throw MediaError(video_.path + " has a frame without a time stamp.");
      if (!last_) limit_ = last_tick(0);
      continue;
    }
    if (!last_) throw MediaError(video_.path + " has a video track without a single picture.");
    end_ = Fraction(last_->pts) * unit - video_.start + frame_length(*last_, stream);
    if (video_.stated_end && video_.start + end_ < *video_.stated_end - kMissing && !video_.end_is_of_file) {
      throw MediaError(video_.path + " is truncated: it states that it ends at " +
                       std::to_string(video_.stated_end->value()) + " s, but its frames do at " +
                       std::to_string((video_.start + end_).value()) + " s.");
    }
    ended_ = true;
  }
  if (second_ >= 1 && Fraction(second_) + Fraction(1, 2) > end_) return std::nullopt;
  Fraction length = end_ - Fraction(second_);
  if (length > Fraction(1)) length = Fraction(1);
  if (length < Fraction(0)) length = Fraction(0);
  return ChosenFrame{second_++, Fraction(last_->pts) * unit - video_.start, length, last_};
}

}  // namespace avsbg_run
