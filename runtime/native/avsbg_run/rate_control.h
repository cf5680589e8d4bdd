// The rate of masks of a live source, lowered while the machine cannot follow: runtime/segment/rate_control.py.
#pragma once

#include <algorithm>
#include <vector>

#include "places.h"

namespace avsbg_run {

// Passes on the samples of as many phases as the network has time for. Of k phases those whose number is a multiple of a
// divisor of k stay, each divisor dividing the next: masks remain evenly spaced, and a lower rate only ends phases.
class RateControl {
 public:
  // `most`: samples that may wait for the network.
  RateControl(int phases, std::size_t most) : lowest(phases), phases_(phases), most_(most) {
    for (int step = 2; step <= phases; ++step) {
      if (phases % step == 0 && step % steps_.back() == 0) steps_.push_back(step);
    }
  }

  // Whether a sample is passed on, where so many wait.
  bool passes(const Place& place, std::size_t waiting) {
    if (waiting >= most_ && level_ + 1 < steps_.size()) {
      ++level_;
      patience_ = std::min(kMostPatience, 2 * patience_);
      lowest = std::min(lowest, phases_ / steps_[level_]);
      calm_since_ = place.begin;
    } else if (waiting > 1) {
      calm_since_ = place.begin;
    } else if (level_ > 0 && place.begin - calm_since_ >= Fraction(patience_)) {
      --level_;
      calm_since_ = place.begin;
    }
    const bool is_passed = place.phase % steps_[level_] == 0;
    left_out += !is_passed;
    return is_passed;
  }

  std::int64_t left_out = 0;  // samples
  int lowest;                 // masks a second

 private:
  // Seconds of the source without a wait, after which a higher rate is tried; each try that fails doubles them.
  static constexpr int kPatience = 4, kMostPatience = 64;

  std::vector<int> steps_ = {1};
  int phases_, patience_ = kPatience;
  std::size_t most_, level_ = 0;
  Fraction calm_since_;
};

}  // namespace avsbg_run
