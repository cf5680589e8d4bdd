#include "overlay.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "encoder.h"
#include "outputs.h"

extern "C" {
#include <libavutil/pixdesc.h>
}

namespace avsbg_run {
namespace {

constexpr std::array<std::uint8_t, 3> kTint = {255, 64, 0};
using Yuv = std::array<std::uint8_t, 3>;

// RGB, [height][width][3] of even size, as yuv420p of a matrix and a range.
FramePtr from_rgb(const std::vector<std::uint8_t>& pixels, int width, int height, const Appearance& look) {
  FramePtr result(av_frame_alloc(), FreeAv());
  result->format = AV_PIX_FMT_YUV420P;
  result->width = width;
  result->height = height;
  if (av_frame_get_buffer(result.get(), 0) < 0) throw std::bad_alloc();
  const Owned<SwsContext> scaler(sws_getContext(width, height, AV_PIX_FMT_RGB24, width, height, AV_PIX_FMT_YUV420P,
                                                SWS_BILINEAR, nullptr, nullptr, nullptr));
  if (!scaler) throw MediaError("the overlay's frames cannot be converted from RGB.", "Use --no-overlay.");
  const int* const coefficients = sws_getCoefficients(look.matrix == AVCOL_SPC_BT2020_CL ? AVCOL_SPC_BT2020_NCL : look.matrix);
  sws_setColorspaceDetails(scaler.get(), coefficients, 1, coefficients, look.range == AVCOL_RANGE_JPEG, 0, 1 << 16, 1 << 16);
  // swscale reads a pointer and a stride for each of four planes, whatever the format.
  const std::uint8_t* const data[4] = {pixels.data()};
  const int stride[4] = {3 * width};
  sws_scale(scaler.get(), data, stride, 0, height, result->data, result->linesize);
  return result;
}

// The last mask by a second, of masks that come in order and are waited for.
class CurrentMask {
 public:
  CurrentMask(Channel<SecondMask>& masks, std::size_t pixels) : masks_(masks), mask_(pixels) {}

  const std::vector<std::uint8_t>& at(std::int64_t second) {
    while (second_ < second && !ended_) {
      if (!coming_) coming_ = masks_.get();
      if (!coming_ || (coming_->second > second && second_ >= 0)) {
        ended_ = !coming_;
        break;
      }
      second_ = coming_->second;
      mask_ = std::move(coming_->mask);
      coming_.reset();
    }
    return mask_;
  }

 private:
  Channel<SecondMask>& masks_;
  std::vector<std::uint8_t> mask_;
  std::optional<SecondMask> coming_;
  std::int64_t second_ = -1;
  bool ended_ = false;
};

class Tinter {
 public:
  Tinter(const VideoInfo& video, const Appearance& look, bool is_rgb, bool are_classes)
      : video_(video), look_(look), is_rgb_(is_rgb), are_classes_(are_classes) {
    for (int number = 0; number < 256; ++number) {
      std::vector<std::uint8_t> square;
      for (int i = 0; i < 4; ++i) {
        const std::uint8_t* const colour = are_classes ? class_colours().data() + 3 * number : kTint.data();
        square.insert(square.end(), colour, colour + 3);
      }
      const FramePtr planes = from_rgb(square, 2, 2, look);
      tints_[static_cast<std::size_t>(number)] = {planes->data[0][0], planes->data[1][0], planes->data[2][0]};
    }
  }

  // A frame tinted where its mask is not 0, in yuv420p of even size.
  FramePtr operator()(const AVFrame& frame, const std::vector<std::uint8_t>& mask) const {
    const int width = video_.width + video_.width % 2, height = video_.height + video_.height % 2;
    const Orientation turned = orientation_of(frame, video_.orientation);
    const bool is_upright = !turned.transposed && !turned.flipped_x && !turned.flipped_y;
    FramePtr planar;
    if (is_rgb_ || !is_upright || width != video_.width || height != video_.height || frame.width != video_.width ||
        frame.height != video_.height) {
      planar = from_rgb(padded(displayed(frame, video_), 3), width, height, look_);
    } else if (frame.format == AV_PIX_FMT_YUV420P) {
      planar.reset(av_frame_clone(&frame), FreeAv());
      if (!planar || av_frame_make_writable(planar.get()) < 0) throw std::bad_alloc();
    } else {
      planar = reformat(frame, width, height, AV_PIX_FMT_YUV420P);
    }
    const std::vector<std::uint8_t> wide = padded(mask, 1);
    for (int plane = 0; plane < 3; ++plane) {
      const int step = plane == 0 ? 1 : 2;
      for (int y = 0; y < height; y += step) {
        std::uint8_t* const row = planar->data[plane] + static_cast<std::ptrdiff_t>(y / step) * planar->linesize[plane];
        for (int x = 0; x < width; x += step) {
          const std::uint8_t value = wide[static_cast<std::size_t>(y) * static_cast<std::size_t>(width) + static_cast<std::size_t>(x)];
          if (value == 0) continue;
          const std::uint8_t tint = tints_[are_classes_ ? value : 0][static_cast<std::size_t>(plane)];
          row[x / step] = static_cast<std::uint8_t>((row[x / step] >> 1) + (tint >> 1));
        }
      }
    }
    return planar;
  }

 private:
  // Width and height made even by repeating the edge.
  std::vector<std::uint8_t> padded(std::vector<std::uint8_t> pixels, int channels) const {
    if (video_.width % 2 == 0 && video_.height % 2 == 0) return pixels;
    const int width = video_.width + video_.width % 2, height = video_.height + video_.height % 2;
    std::vector<std::uint8_t> result;
    for (int y = 0; y < height; ++y) {
      for (int x = 0; x < width; ++x) {
        const auto at = static_cast<std::size_t>((std::min(y, video_.height - 1) * video_.width + std::min(x, video_.width - 1)) * channels);
        result.insert(result.end(), pixels.begin() + static_cast<std::ptrdiff_t>(at),
                      pixels.begin() + static_cast<std::ptrdiff_t>(at) + channels);
      }
    }
    return result;
  }

  const VideoInfo& video_;
  Appearance look_;
  bool is_rgb_, are_classes_;
  std::array<Yuv, 256> tints_{};
};

}  // namespace

void write_overlay(const VideoInfo& video, const std::string& path, Channel<SecondMask>& masks, bool are_classes) {
  Container container(video.path);
  container.open_decoder(video.video.index, 0);
  if (video.audio) container.open_decoder(video.audio->index, 1);
  const AVStream* const stream = container.stream(video.video.index);
  const AVCodecParameters* const coded = stream->codecpar;
  const AVPixFmtDescriptor* const format = av_pix_fmt_desc_get(static_cast<AVPixelFormat>(coded->format));
  const bool is_rgb = format != nullptr && (format->flags & (AV_PIX_FMT_FLAG_RGB | AV_PIX_FMT_FLAG_PAL)) != 0;
  Appearance look{coded->color_primaries, coded->color_trc, coded->color_space, coded->color_range, {1, 1}};
  if (is_rgb) {
    look.matrix = AVCOL_SPC_BT709;
    look.range = AVCOL_RANGE_MPEG;
  }
  const AVRational aspect = stream->sample_aspect_ratio.num > 0 ? stream->sample_aspect_ratio : coded->sample_aspect_ratio;
  if (aspect.num > 0 && aspect.den > 0) {
    look.pixel_aspect = video.orientation.transposed ? AVRational{aspect.den, aspect.num} : aspect;
  }
  const AVRational rate = video.rate ? stream->r_frame_rate : AVRational{30, 1};
  Mp4Encoder encoder(path, video.width + video.width % 2, video.height + video.height % 2, look, rate, video.audio.has_value());
  const Tinter tint(video, look, is_rgb, are_classes);
  CurrentMask mask(masks, static_cast<std::size_t>(video.width) * static_cast<std::size_t>(video.height));
  const auto ticks = [](const Fraction& time) { return (time * Fraction(Mp4Encoder::kTicks)).round(); };
  const auto show = [&](const AVFrame& frame, const Fraction& begin, const Fraction& end) {
    // Once for each second that it is displayed in, each with its own mask.
    for (Fraction start = begin; start < end || start == begin;) {
      const std::int64_t second = std::max<std::int64_t>(0, start.floor());
      Fraction stop = Fraction(second + 1);
      if (end < stop) stop = end;
      encoder.add_frame(*tint(frame, mask.at(second)), ticks(start), std::max<std::int64_t>(1, ticks(stop) - ticks(start)));
      if (stop <= start) break;
      start = stop;
    }
  };
  FramePtr waiting;
  Fraction begin;
  int index = -1;
  while (const FramePtr frame = container.next(index)) {
    const AVRational unit = container.stream(index)->time_base;
    if (frame->pts == AV_NOPTS_VALUE) throw MediaError(video.path + " has a frame without a time stamp.", "Use --no-overlay.");
    const Fraction time = Fraction(frame->pts) * Fraction(unit.num, unit.den) - video.start;
    if (index != video.video.index) {
      encoder.add_sound(*frame, time);
      continue;
    }
    if (waiting) show(*waiting, begin, time);
    waiting = frame;
    begin = time;
  }
  if (waiting) show(*waiting, begin, begin + (video.rate ? Fraction(1) / *video.rate : Fraction(1, 30)));
  encoder.finish();
}

}  // namespace avsbg_run
