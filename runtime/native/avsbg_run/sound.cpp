#include "sound.h"

#include <algorithm>

extern "C" {
#include <libavutil/channel_layout.h>
#include <libavutil/opt.h>
}

namespace avsbg_run {
namespace {

// Encoders and clocks jitter by milliseconds; what is further off is a gap, an overlap or a clock that has drifted.
const Fraction kTolerance(1, 10);
// Time stamps are rounded to the container's unit.
const Fraction kRounding(1, 500);
// A longer gap is more likely a damaged time stamp than silence.
const Fraction kLongestGap(3600);

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

bool is_off(const Fraction& gap, const Fraction& most) { return gap > most || gap < Fraction(0) - most; }

}  // namespace

int channels_of(const AVFrame& frame) {
#if LIBAVUTIL_VERSION_INT >= AV_VERSION_INT(57, 28, 100)
  return frame.ch_layout.nb_channels;
#else
  return frame.channels;
#endif
}

Aligner::Aligner(std::string name, Fraction start, int rate, const std::vector<Fraction>& joins)
    : name_(std::move(name)), start_(start), rate_(rate) {
  for (const Fraction& join : joins) joins_.push_back(join - start);
}

void Aligner::push(const Decoded& sound) {
  place(sound);
  const AVFrame& frame = *sound.frame;
  since_ += frame.nb_samples;
  const int channels = channels_of(frame);
  if (frame.format != AV_SAMPLE_FMT_FLTP) {
    // Other formats are made float by the resampler, and their channels averaged behind it.
    set_resampler(static_cast<AVSampleFormat>(frame.format), channels, frame.sample_rate);
    resample(const_cast<const std::uint8_t**>(frame.extended_data), frame.nb_samples);
    return;
  }
  // Channels are averaged first where samples are float: there is less to resample.
  std::vector<float> mono(static_cast<std::size_t>(frame.nb_samples));
  for (int channel = 0; channel < channels; ++channel) {
    const auto* const plane = reinterpret_cast<const float*>(frame.extended_data[channel]);
    for (std::size_t i = 0; i < mono.size(); ++i) mono[i] = channel == 0 ? plane[i] : mono[i] + plane[i];
  }
  for (float& one : mono) one /= static_cast<float>(channels);
  set_resampler(AV_SAMPLE_FMT_FLT, 1, frame.sample_rate);
  const auto* data = reinterpret_cast<const std::uint8_t*>(mono.data());
  resample(&data, frame.nb_samples);
}

// Holds a frame's time stamp against the end of the frame before.
void Aligner::place(const Decoded& sound) {
  const Fraction position = position_.value_or(Fraction(0)) + Fraction(since_, since_rate_);
  if (!sound.has_time() && !position_) throw MediaError("the sound of " + name_ + " has no time stamps.");
  const Fraction begin = sound.has_time() ? sound.time() - start_ : position;
  const Fraction gap = begin - position;
  // The recording before may reach beyond the join: its frames follow each other.
  const bool is_join = !joins_.empty() && begin >= joins_.front() && is_off(gap, kRounding);
  while (is_join && !joins_.empty() && begin >= joins_.front()) joins_.pop_front();
  Fraction next = position;
  if (!position_ || is_join || is_off(gap, kTolerance)) {
    if (gap > kLongestGap) {
      throw MediaError("the sound of " + name_ + " has a gap of " + std::to_string(gap.value()) + " s.");
    }
    if (gap > Fraction(0)) {
      finish();
      const std::vector<float> silence(static_cast<std::size_t>((gap * Fraction(rate_)).round()));
      keep(silence.data(), silence.size());
    } else {
      drop_ += ((Fraction(0) - gap) * Fraction(rate_)).round();
    }
    next = begin;
  }
  position_ = next;
  since_ = 0;
  since_rate_ = sound.frame->sample_rate;
}

void Aligner::set_resampler(AVSampleFormat format, int channels, int rate) {
  if (resampler_ && in_format_ == format && in_channels_ == channels && in_rate_ == rate) return;
  finish();
  resampler_.reset(make_resampler(format, channels, rate, rate_));
  in_format_ = format;
  in_channels_ = channels;
  in_rate_ = rate;
}

void Aligner::resample(const std::uint8_t** planes, int count) {
  const auto room = static_cast<int>(swr_get_delay(resampler_.get(), rate_) +
                                     std::int64_t{count} * rate_ / std::max(in_rate_, 1) + 1024);
  std::vector<float> packed(static_cast<std::size_t>(room) * static_cast<std::size_t>(in_channels_));
  auto* out = reinterpret_cast<std::uint8_t*>(packed.data());
  const int made = swr_convert(resampler_.get(), &out, room, planes, count);
  if (made < 0) throw MediaError("the sound of " + name_ + " cannot be resampled: " + ffmpeg_error(made));
  std::vector<float> mono(static_cast<std::size_t>(made));
  for (std::size_t i = 0; i < mono.size(); ++i) {
    const float* const each = packed.data() + i * static_cast<std::size_t>(in_channels_);
    float sum = each[0];
    for (int channel = 1; channel < in_channels_; ++channel) sum += each[channel];
    mono[i] = sum / static_cast<float>(in_channels_);
  }
  keep(mono.data(), mono.size());
}

void Aligner::finish() {
  if (!resampler_) return;
  resample(nullptr, 0);
  resampler_.reset();
}

void Aligner::keep(const float* values, std::size_t count) {
  const std::size_t dropped = std::min(count, static_cast<std::size_t>(drop_));
  drop_ -= static_cast<std::int64_t>(dropped);
  samples.insert(samples.end(), values + dropped, values + count);
}

std::vector<float> take_samples(std::deque<float>& samples, std::size_t count) {
  const auto have = static_cast<std::ptrdiff_t>(std::min(count, samples.size()));
  std::vector<float> taken(samples.begin(), samples.begin() + have);
  samples.erase(samples.begin(), samples.begin() + have);
  taken.resize(count);
  return taken;
}

SoundReader::SoundReader(const VideoInfo& video, int rate, Damage* damage)
    : container_(video, damage),
      aligner_(video.path, video.start, rate, video.clock.begins.count(video.audio->index) != 0
                                                  ? video.clock.begins.at(video.audio->index) : std::vector<Fraction>()) {
  container_.open_decoder(video.audio->index, 1);
}

std::vector<float> SoundReader::read(std::size_t count) {
  while (aligner_.samples.size() < count && !ended_) {
    if (const std::optional<Decoded> sound = container_.next()) {
      aligner_.push(*sound);
    } else {
      aligner_.finish();
      ended_ = true;
    }
  }
  return take_samples(aligner_.samples, count);
}

std::vector<float> SoundWindows::read(const Place& place, const Fraction& length) {
  const auto [begin, count] = place_samples(place, length, rate_);
  const std::int64_t missing = begin + count - start_ - static_cast<std::int64_t>(held_.size());
  if (missing > 0) {
    const std::vector<float> more = read_(static_cast<std::size_t>(missing));
    held_.insert(held_.end(), more.begin(), more.end());
  }
  const std::int64_t old = std::clamp<std::int64_t>(begin - rate_ - start_, 0, static_cast<std::int64_t>(held_.size()));
  held_.erase(held_.begin(), held_.begin() + old);
  start_ += old;
  const auto first = held_.begin() + (begin - start_);
  return {first, first + count};
}

std::pair<std::int64_t, std::int64_t> place_samples(const Place& place, const Fraction& length, int rate) {
  return {((place.begin - Fraction(place.second)) * Fraction(rate)).round() + place.second * rate,
          (length * Fraction(rate)).round()};
}

}  // namespace avsbg_run
