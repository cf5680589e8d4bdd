#include "places.h"

#include <algorithm>

#include "media.h"

namespace avsbg_run {
namespace {

// Places behind the newest one that can still be asked for: more than a decoder and the packets before it hold.
constexpr std::size_t kHeld = std::size_t{1} << 15;

}  // namespace

Places::Places(Fraction rate, int clip_seconds, double offset, std::optional<Fraction> frame_rate)
    : rate_(rate), offset_(Fraction::of(offset)), clip_seconds_(clip_seconds), frame_rate_(frame_rate) {
  for (int phase = 0; Fraction(phase) < rate; ++phase) coming_.push_back(make(phase, 0));
}

Place Places::make(int phase, std::int64_t second) const {
  const Fraction shift = Fraction(phase) / rate_;
  Fraction deadline = Fraction(second) + offset_;
  if (frame_rate_ && frame_rate_->round() != 0) {
    const std::int64_t clip = second - second % clip_seconds_;
    const std::int64_t index = ((Fraction(second - clip) + offset_) * Fraction(frame_rate_->round())).floor();
    // Half a frame of slack: a stored time may be rounded either way.
    deadline = Fraction(clip) + (Fraction(index) + Fraction(1, 2)) / *frame_rate_;
  }
  return {phase, second, shift + Fraction(second), shift + deadline};
}

Place Places::operator[](std::int64_t number) {
  for (; made_ <= number; ++made_) {
    const auto next = std::min_element(coming_.begin(), coming_.end(),
                                       [](const Place& one, const Place& other) { return one.deadline < other.deadline; });
    held_.push_back(*next);
    *next = make(next->phase, next->second + 1);
    if (held_.size() > kHeld) held_.pop_front();
  }
  return held_.at(static_cast<std::size_t>(number - (made_ - static_cast<std::int64_t>(held_.size()))));
}

Fraction masks_a_second(const std::string& rate, std::optional<Fraction> frame_rate) {
  if (rate != "every-frame") return Fraction(std::stoll(rate));
  if (!frame_rate || !(*frame_rate > Fraction(0))) {
    throw MediaError("the source does not say how many frames a second it has.",
                     "Give a number of masks a second, e.g. --rate 10.");
  }
  return std::min(Fraction(kHighestRate), std::max(Fraction(1), *frame_rate));
}

}  // namespace avsbg_run
