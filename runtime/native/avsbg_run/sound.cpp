#include <algorithm>

#include "media.h"

extern "C" {
#include <libavutil/channel_layout.h>
#include <libavutil/opt.h>
}

namespace avsbg_run {
namespace {

// Encoders and clocks jitter by milliseconds; what is further off is a gap, an overlap or a clock that has drifted.
const Fraction kTolerance(1, 10);
// A longer gap is more likely a damaged time stamp than silence.
const Fraction kLongestGap(3600);

int channels_of(const AVFrame& frame) {
#if LIBAVUTIL_VERSION_INT >= AV_VERSION_INT(57, 28, 100)
  return frame.ch_layout.nb_channels;
#else
  return frame.channels;
#endif
}

// From packed or planar samples of any format to packed floats; which speakers the channels are plays no part.
SwrContext* make_resampler(AVSampleFormat format, int channels, int in_rate, int out_rate) {
  SwrContext* resampler = nullptr;
#if LIBAVUTIL_VERSION_INT >= AV_VERSION_INT(57, 28, 100)
  AVChannelLayout layout;
  av_channel_layout_default(&layout, channels);
  swr_alloc_set_opts2(&resampler, &layout, AV_SAMPLE_FMT_FLT, out_rate, &layout, format, in_rate, 0, nullptr);
#else
  const std::int64_t layout = av_get_default_channel_layout(channels);
  resampler = swr_alloc_set_opts(nullptr, layout, AV_SAMPLE_FMT_FLT, out_rate, layout, format, in_rate, 0, nullptr);
#endif
  if (resampler == nullptr || swr_init(resampler) < 0) {
    swr_free(&resampler);
    throw MediaError("sound of " + std::to_string(channels) + " channels at " + std::to_string(in_rate) + " Hz cannot be resampled.");
  }
  return resampler;
}

}  // namespace

SoundReader::SoundReader(const VideoInfo& video, int rate) : video_(video), container_(video.path), rate_(rate) {
  container_.open_decoder(video.audio->index, 1);
}

std::vector<float> SoundReader::read(std::size_t count) {
  while (samples_.size() < count && !ended_) {
    int index = -1;
    const FramePtr frame = container_.next(index);
    if (frame) {
      take(*frame);
    } else {
      flush();
      ended_ = true;
    }
  }
  const std::size_t have = std::min(count, samples_.size());
  std::vector<float> taken(samples_.begin(), samples_.begin() + static_cast<std::ptrdiff_t>(have));
  samples_.erase(samples_.begin(), samples_.begin() + static_cast<std::ptrdiff_t>(have));
  taken.resize(count);
  return taken;
}

void SoundReader::take(const AVFrame& frame) {
  place(frame);
  since_ += frame.nb_samples;
  const int channels = channels_of(frame);
  if (frame.format != AV_SAMPLE_FMT_FLTP) {
    convert(&frame);
    return;
  }
  // Channels are averaged first where samples are float: there is less to resample.
  std::vector<float> mono(static_cast<std::size_t>(frame.nb_samples));
  for (int channel = 0; channel < channels; ++channel) {
    const auto* const plane = reinterpret_cast<const float*>(frame.extended_data[channel]);
    for (std::size_t i = 0; i < mono.size(); ++i) mono[i] = channel == 0 ? plane[i] : mono[i] + plane[i];
  }
  for (float& one : mono) one /= static_cast<float>(channels);
  if (in_format_ != AV_SAMPLE_FMT_FLTP || in_rate_ != frame.sample_rate || !resampler_) {
    flush();
    resampler_.reset(make_resampler(AV_SAMPLE_FMT_FLT, 1, frame.sample_rate, rate_));
    in_format_ = AV_SAMPLE_FMT_FLTP;
    in_channels_ = 1;
    in_rate_ = frame.sample_rate;
  }
  const auto* data = reinterpret_cast<const std::uint8_t*>(mono.data());
  resample(reinterpret_cast<const float* const*>(&data), frame.nb_samples, 1, in_rate_);
}

// Holds a frame's time stamp against the end of the frame before.
void SoundReader::place(const AVFrame& frame) {
  const AVRational base = container_.stream(video_.audio->index)->time_base;
  const Fraction position = position_.value_or(Fraction(0)) + Fraction(since_, since_rate_);
  const bool untimed = frame.pts == AV_NOPTS_VALUE;
  if (untimed && !position_) throw MediaError("the sound of " + video_.path + " has no time stamps.");
  Fraction begin = untimed ? position : Fraction(frame.pts) * Fraction(base.num, base.den) - video_.start;
  const Fraction gap = begin - position;
  Fraction next = position;
  if (!position_ || gap > kTolerance || gap < Fraction(0) - kTolerance) {
    if (gap > kLongestGap) {
      throw MediaError("the sound of " + video_.path + " has a gap of " + std::to_string(gap.value()) + " s.");
    }
    if (gap > Fraction(0)) {
      flush();
      resampler_.reset();
      const std::vector<float> silence(static_cast<std::size_t>((gap * Fraction(rate_)).round()));
      keep(silence.data(), silence.size());
    } else {
      drop_ += ((Fraction(0) - gap) * Fraction(rate_)).round();
    }
    next = begin;
  }
  position_ = next;
  since_ = 0;
  since_rate_ = frame.sample_rate;
}

// Other formats are made float by the resampler, and their channels averaged behind it.
void SoundReader::convert(const AVFrame* frame) {
  const int channels = channels_of(*frame);
  if (!resampler_ || in_format_ != frame->format || in_channels_ != channels || in_rate_ != frame->sample_rate) {
    flush();
    resampler_.reset(make_resampler(static_cast<AVSampleFormat>(frame->format), channels, frame->sample_rate, rate_));
    in_format_ = frame->format;
    in_channels_ = channels;
    in_rate_ = frame->sample_rate;
  }
  resample(reinterpret_cast<const float* const*>(frame->extended_data), frame->nb_samples, channels, in_rate_);
}

void SoundReader::resample(const float* const* planes, int samples, int channels, int rate) {
  const auto room = static_cast<int>(swr_get_delay(resampler_.get(), rate_) +
                                     std::int64_t{samples} * rate_ / std::max(rate, 1) + 1024);
  std::vector<float> packed(static_cast<std::size_t>(room) * static_cast<std::size_t>(channels));
  auto* out = reinterpret_cast<std::uint8_t*>(packed.data());
  auto** in = const_cast<const std::uint8_t**>(reinterpret_cast<const std::uint8_t* const*>(planes));
  const int made = swr_convert(resampler_.get(), &out, room, in, samples);
  if (made < 0) throw MediaError("the sound of " + video_.path + " cannot be resampled: " + ffmpeg_error(made));
  std::vector<float> mono(static_cast<std::size_t>(made));
  for (std::size_t i = 0; i < mono.size(); ++i) {
    const float* const each = packed.data() + i * static_cast<std::size_t>(channels);
    float sum = each[0];
    for (int channel = 1; channel < channels; ++channel) sum += each[channel];
    mono[i] = sum / static_cast<float>(channels);
  }
  keep(mono.data(), mono.size());
}

void SoundReader::flush() {
  if (!resampler_) return;
  resample(nullptr, 0, in_channels_, in_rate_);
  resampler_.reset();
}

void SoundReader::keep(const float* samples, std::size_t count) {
  const std::size_t dropped = std::min(count, static_cast<std::size_t>(drop_));
  drop_ -= static_cast<std::int64_t>(dropped);
  samples_.insert(samples_.end(), samples + dropped, samples + count);
}

}  // namespace avsbg_run
