#include "overlay.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "outputs.h"
#include "pictures.h"

namespace avsbg_run {
namespace {

using Bytes = std::vector<std::uint8_t>;
using Yuv = std::array<std::uint8_t, 3>;

// RGB, [height][width][3] of even size, as yuv420p of a matrix and a range.
FramePtr from_rgb(const Bytes& pixels, int width, int height, const Appearance& look) {
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

// Gives the mask that is displayed at a time, of masks that come in order and are waited for.
class Masks {
 public:
  virtual ~Masks() = default;
  // No earlier time and number is asked for afterwards.
  virtual const Bytes& at(const Fraction& time, std::int64_t number) = 0;
  std::int64_t made = 0;  // between two of the network's
};

// The last mask by a number.
class HeldMasks : public Masks {
 public:
  HeldMasks(Channel<ShownMask>& masks, std::size_t pixels) : masks_(masks), mask_(pixels) {}

  const Bytes& at(const Fraction&, std::int64_t number) override {
    while (number_ < number && !ended_) {
      if (!coming_) coming_ = masks_.get();
      if (!coming_ || (coming_->number > number && number_ >= 0)) {
        ended_ = !coming_;
        break;
      }
      number_ = coming_->number;
      mask_ = std::move(coming_->mask);
      coming_.reset();
    }
    return mask_;
  }

 private:
  Channel<ShownMask>& masks_;
  Bytes mask_;
  std::optional<ShownMask> coming_;
  std::int64_t number_ = -1;
  bool ended_ = false;
};

// Between the masks of the network the probability of each pixel is linear in time.
class InterpolatedMasks : public Masks {
 public:
  InterpolatedMasks(Channel<ShownMask>& masks, const VideoInfo& video, Places places, double threshold)
      : masks_(masks), video_(video), places_(std::move(places)), threshold_(threshold) {}

  const Bytes& at(const Fraction& time, std::int64_t) override {
    if (!last_) next_ = take();
    while (next_ && (!last_ || next_->first <= time)) {
      last_ = std::move(next_);
      next_ = take();
    }
    if (!last_) throw MediaError("there is no mask for the frames of " + video_.path + ".");
    const avsbg::Mask& earlier = last_->second->mask;
    if (next_ && time > last_->first) {
      const float share = static_cast<float>(((time - last_->first) / (next_->first - last_->first)).value());
      ++made;
      mask_ = earlier.interpolate(next_->second->mask, share).decide(video_.width, video_.height, threshold_);
    } else {
      mask_ = earlier.decide(video_.width, video_.height, threshold_);
    }
    return mask_;
  }

 private:
  using Timed = std::pair<Fraction, std::shared_ptr<const Segmented>>;

  // Times increase: when the frame begins, or, of further places of it, their deadline.
  std::optional<Timed> take() {
    const std::optional<ShownMask> one = masks_.get();
    if (!one) return std::nullopt;
    const Segmented& result = *one->result;
    if (!reached_ || result.time > *reached_) {
      reached_ = result.time;
    } else {
      reached_ = std::max(*reached_, places_[result.number].deadline);
    }
    return Timed{*reached_, one->result};
  }

  Channel<ShownMask>& masks_;
  const VideoInfo& video_;
  Places places_;
  double threshold_;
  std::optional<Timed> last_, next_;
  std::optional<Fraction> reached_;
  Bytes mask_;
};

// The number of the mask that is displayed at each time: a second's during it, or a place's from its frame on.
class Timetable {
 public:
  explicit Timetable(std::optional<Places> places) : places_(std::move(places)) {}

  // The times from which a frame that is displayed from `begin` to `end` shows which mask; times increase.
  std::vector<std::pair<Fraction, std::int64_t>> pieces(const Fraction& begin, const Fraction& end) {
    std::vector<std::pair<Fraction, std::int64_t>> found;
    if (!places_) {
      const std::int64_t first = std::max<std::int64_t>(0, begin.floor());
      found.emplace_back(begin, first);
      for (std::int64_t second = first + 1; Fraction(second) < end; ++second) found.emplace_back(Fraction(second), second);
      return found;
    }
    for (Fraction deadline; (deadline = (*places_)[next_].deadline) < end; ++next_) {
      // The first of the places that this frame stands for has it from its beginning on.
      if (deadline > begin && !found.empty()) {
        found.emplace_back(deadline, next_);
      } else {
        found = {{begin, next_}};
      }
    }
    if (found.empty()) found.emplace_back(begin, std::max<std::int64_t>(0, next_ - 1));
    return found;
  }

 private:
  std::optional<Places> places_;
  std::int64_t next_ = 0;
};

// Tints decoded frames in the YUV that they are in, which keeps all other colours as they are.
class Tinter {
 public:
  Tinter(const VideoInfo& video, const std::vector<std::string>& labels) : look(video.look), video_(video), labels_(labels) {
    if (look.is_rgb) {
      look.matrix = AVCOL_SPC_BT709;
      look.range = AVCOL_RANGE_MPEG;
    }
    for (int number = 0; number < 256; ++number) {
      Bytes square;
      for (int i = 0; i < 4; ++i) {
        const std::uint8_t* const colour = labels.empty() ? kTint.data() : class_colours().data() + 3 * number;
        square.insert(square.end(), colour, colour + 3);
      }
      const FramePtr planes = from_rgb(square, 2, 2, look);
      tints_[static_cast<std::size_t>(number)] = {planes->data[0][0], planes->data[1][0], planes->data[2][0]};
    }
  }

  // A frame tinted where its mask is not 0, in yuv420p of even size.
  FramePtr operator()(const AVFrame& frame, const Bytes& mask) {
    const int width = even(video_.width), height = even(video_.height);
    const Orientation turned = orientation_of(frame, video_.orientation);
    const bool is_upright = !turned.transposed && !turned.flipped_x && !turned.flipped_y;
    FramePtr planar;
    if (look.is_rgb || !is_upright || width != video_.width || height != video_.height || frame.width != video_.width ||
        frame.height != video_.height) {
      planar = from_rgb(padded(displayed(frame, video_), 3), width, height, look);
    } else if (frame.format == AV_PIX_FMT_YUV420P) {
      planar.reset(av_frame_clone(&frame), FreeAv());
      if (!planar || av_frame_make_writable(planar.get()) < 0) throw std::bad_alloc();
    } else {
      planar = reformat(frame, width, height, AV_PIX_FMT_YUV420P);
    }
    const Bytes wide = padded(mask, 1);
    for (int plane = 0; plane < 3; ++plane) {
      const int step = plane == 0 ? 1 : 2;
      for (int y = 0; y < height; y += step) {
        std::uint8_t* const row = planar->data[plane] + static_cast<std::ptrdiff_t>(y / step) * planar->linesize[plane];
        for (int x = 0; x < width; x += step) {
          const std::uint8_t value = wide[static_cast<std::size_t>(y) * static_cast<std::size_t>(width) + static_cast<std::size_t>(x)];
          if (value == 0) continue;
          const std::uint8_t tint = tints_[labels_.empty() ? 0 : value][static_cast<std::size_t>(plane)];
          row[x / step] = static_cast<std::uint8_t>((row[x / step] >> 1) + (tint >> 1));
        }
      }
    }
    if (!labels_.empty()) show_legend(*planar, mask);
    return planar;
  }

  static int even(int size) { return size + size % 2; }

  Appearance look;  // of the overlay

 private:
  void show_legend(AVFrame& planar, const Bytes& mask) {
    if (mask != legend_of_) {  // made once while the mask stays
      const Picture panel = make_legend(mask, video_.width, video_.height, labels_);
      legend_ = panel.width > 0 ? from_rgb(panel.pixels, panel.width, panel.height, look) : nullptr;
      legend_of_ = mask;
    }
    if (!legend_) return;
    for (int plane = 0; plane < 3; ++plane) {
      const int step = plane == 0 ? 1 : 2;
      for (int y = 0; y < legend_->height / step; ++y) {
        std::memcpy(planar.data[plane] + static_cast<std::ptrdiff_t>(y) * planar.linesize[plane],
                    legend_->data[plane] + static_cast<std::ptrdiff_t>(y) * legend_->linesize[plane],
                    static_cast<std::size_t>(legend_->width / step));
      }
    }
  }

  // Width and height made even by repeating the edge.
  Bytes padded(Bytes pixels, int channels) const {
    const int width = even(video_.width), height = even(video_.height);
    if (width == video_.width && height == video_.height) return pixels;
    Bytes result;
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
  const std::vector<std::string>& labels_;
  std::array<Yuv, 256> tints_{};
  Bytes legend_of_;
  FramePtr legend_;
};

}  // namespace

std::int64_t show_frames(const VideoInfo& video, FrameSource& frames, Channel<ShownMask>& masks, const ShowOptions& options) {
  Tinter tint(video, options.labels);
  std::optional<OverlayFile> overlay;
  if (!options.overlay.empty()) {
    overlay.emplace(options.overlay, Tinter::even(video.width), Tinter::even(video.height), tint.look,
                    video.rate.value_or(Fraction(30)), video.audio.has_value(), options.fragments);
  }
  std::optional<MaskVideo> mask_video;
  if (!options.mask_video.empty()) mask_video.emplace(options.mask_video, video.width, video.height);
  std::unique_ptr<Masks> shown;
  if (options.interpolate) {
    shown = std::make_unique<InterpolatedMasks>(masks, video, *options.places, options.threshold);
  } else {
    shown = std::make_unique<HeldMasks>(masks, static_cast<std::size_t>(video.width) * static_cast<std::size_t>(video.height));
  }
  Timetable timetable(options.places);
  const auto show = [&](const AVFrame& frame, const Fraction& begin, const Fraction& end) {
    const auto pieces = timetable.pieces(begin, end);
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      const auto& [start, number] = pieces[i];
      const Bytes& mask = shown->at(start, number);
      if (mask_video) mask_video->add(start, mask);
      if (overlay) overlay->add_frame(*tint(frame, mask), start, i + 1 < pieces.size() ? pieces[i + 1].first : end);
    }
  };
  std::optional<Decoded> waiting;
  Fraction begin, sound_end;
  while (const std::optional<Decoded> one = frames.next()) {
    if (!one->is_video) {  // sound without a time stamp follows the one before
      const Fraction time = one->has_time() ? one->time() - video.start : sound_end;
      sound_end = time + Fraction(one->frame->nb_samples, one->frame->sample_rate);
      if (overlay) overlay->add_sound(*one->frame, time);
      continue;
    }
    if (!one->has_time()) throw MediaError(video.path + " has a frame without a time stamp.", "Use --no-overlay.");
    const Fraction time = one->time() - video.start;
    if (waiting) show(*waiting->frame, begin, time);
    waiting = one;
    begin = time;
  }
  if (waiting) {
    const Fraction length = frame_length(*waiting->frame, waiting->unit, video.rate.value_or(Fraction(30)));
    show(*waiting->frame, begin, begin + length);
  }
  while (masks.get()) {  // those beyond the last frame, of phases that end in the middle of a second
  }
  if (overlay) overlay->finish();
  if (mask_video) mask_video->finish();
  return shown->made;
}

}  // namespace avsbg_run
