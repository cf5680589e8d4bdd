// The places in a source that get a mask, as runtime/media/places.py has them: at k masks a second those of k clips,
// the phases, shifted against each other by 1/k s.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "fraction.h"

namespace avsbg_run {

// Beyond this, phases hold more memory than any use of them pays for.
constexpr int kHighestRate = 240;

// A second of a phase; times in seconds from the first frame of the source.
struct Place {
  int phase = 0;
  std::int64_t second = 0;   // of the phase
  Fraction begin, deadline;  // of its sound; its frame is the last one that has begun by then
};

// All places of a source in the order of their deadlines, without an end. Not to be shared by threads: copy it.
class Places {
 public:
  // `offset`: where a frame lies in its second. `frame_rate`: frames a second where that is constant.
  Places(Fraction rate, int clip_seconds, double offset, std::optional<Fraction> frame_rate);

  // Numbers are asked for in about increasing order.
  Place operator[](std::int64_t number);
  Fraction rate() const { return rate_; }
  int phases() const { return static_cast<int>(coming_.size()); }

 private:
  Place make(int phase, std::int64_t second) const;

  Fraction rate_, offset_;
  int clip_seconds_;
  std::optional<Fraction> frame_rate_;
  std::vector<Place> coming_;  // the next place of each phase
  std::deque<Place> held_;
  std::int64_t made_ = 0;
};

// The rate of masks that is meant by a number or `every-frame`, in a source of so many frames a second.
Fraction masks_a_second(const std::string& rate, std::optional<Fraction> frame_rate);

}  // namespace avsbg_run
