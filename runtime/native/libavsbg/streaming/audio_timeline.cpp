#include "streaming/audio_timeline.h"

#include <algorithm>
#include <cmath>

#include "error.h"

namespace avsbg {
namespace {

// A chunk this close to the end of the one before follows it without a gap, seconds.
constexpr double kJitter = 0.1;
// The length of the sound that is held for frames that have not come yet, seconds.
constexpr double kHeld = 60.0;

// To the nearest, halves to even, as Python's round.
std::int64_t round_even(double value) { return static_cast<std::int64_t>(std::nearbyint(value)); }

}  // namespace

void AudioTimeline::push(const float* samples, std::size_t count, std::optional<double> timestamp) {
  if (timestamp && !std::isfinite(*timestamp)) throw media_error("a timestamp is a number of seconds.");
  if (!std::all_of(samples, samples + count, [](float one) { return std::isfinite(one); })) {
    throw media_error("sound holds NaN or infinity.", "Check the device or the decoder that it comes from.");
  }
  counters.received += static_cast<std::int64_t>(count);
  double time = timestamp.value_or(end_.value_or(0.0));
  std::size_t dropped = 0;
  if (end_) {
    const double behind = time - *end_;
    if (behind > kJitter) {
      // A gap longer than what is held would be dropped again.
      std::vector<float> silence(static_cast<std::size_t>(round_even(std::min(behind, kHeld) * rate_)));
      const double begin = *end_ + behind - static_cast<double>(silence.size()) / rate_;
      append({begin, std::move(silence), true});
    } else if (behind < -kJitter) {
      const double overlap = std::min(-behind * rate_, static_cast<double>(count) + 1);  // beyond, all of it
      dropped = static_cast<std::size_t>(std::min(static_cast<std::int64_t>(count), round_even(overlap)));
      counters.late += static_cast<std::int64_t>(dropped);
      time = *end_;
    }
  }
  if (dropped < count) append({time, {samples + dropped, samples + count}, false});
}

std::optional<std::vector<float>> AudioTimeline::window(double start, std::size_t count, bool complete) {
  std::size_t first = chunks_.size();
  while (first > 0 && chunks_[first - 1].time > start) --first;
  first = first == 0 ? 0 : first - 1;
  const double distance = chunks_.empty() ? 0.0 : (start - chunks_[first].time) * rate_;
  // Beyond a window's length before the first sample, all is silence.
  std::int64_t skip = round_even(std::max(distance, -static_cast<double>(count)));
  std::vector<float> samples(static_cast<std::size_t>(std::max<std::int64_t>(0, -skip)));
  std::int64_t missing = static_cast<std::int64_t>(samples.size());
  skip = std::max<std::int64_t>(0, skip);
  for (std::size_t i = first; i < chunks_.size() && samples.size() < count; ++i) {
    const Chunk& chunk = chunks_[i];
    const auto size = static_cast<std::int64_t>(chunk.samples.size());
    const std::int64_t begin = std::min(skip, size);
    const std::int64_t taken = std::min(size - begin, static_cast<std::int64_t>(count - samples.size()));
    samples.insert(samples.end(), chunk.samples.begin() + begin, chunk.samples.begin() + begin + taken);
    skip = std::max<std::int64_t>(0, skip - size);
    missing += chunk.is_gap ? taken : 0;
  }
  if (samples.size() < count) {
    if (complete) return std::nullopt;
    missing += static_cast<std::int64_t>(count - samples.size());
    samples.resize(count);
  }
  counters.missing += missing;
  return samples;
}

void AudioTimeline::forget(double before) {
  while (!chunks_.empty() &&
         chunks_.front().time + static_cast<double>(chunks_.front().samples.size()) / rate_ <= before) {
    held_ -= static_cast<std::int64_t>(chunks_.front().samples.size());
    chunks_.pop_front();
  }
}

void AudioTimeline::clear() {
  chunks_.clear();
  end_.reset();
  held_ = 0;
}

void AudioTimeline::append(Chunk chunk) {
  held_ += static_cast<std::int64_t>(chunk.samples.size());
  end_ = chunk.time + static_cast<double>(chunk.samples.size()) / rate_;
  chunks_.push_back(std::move(chunk));
  while (chunks_.size() > 1 && static_cast<double>(held_) - static_cast<double>(chunks_.front().samples.size()) >= kHeld * rate_) {
    const auto size = static_cast<std::int64_t>(chunks_.front().samples.size());
    held_ -= size;
    counters.overdue += chunks_.front().is_gap ? 0 : size;
    chunks_.pop_front();
  }
}

}  // namespace avsbg
