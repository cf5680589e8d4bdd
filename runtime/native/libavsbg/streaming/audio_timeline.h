// Sound as it arrives, placed on a clock by its timestamps: runtime/streaming/audio_timeline.py's rules.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

namespace avsbg {

struct AudioCounters {
  std::int64_t received = 0, late = 0, overdue = 0, missing = 0;  // samples
};

class AudioTimeline {
 public:
  explicit AudioTimeline(int rate) : rate_(rate) {}

  // Appends finite samples; without a time they follow the chunk before.
  void push(const float* samples, std::size_t count, std::optional<double> time);
  // Samples from a time on; silence before the first one held. Where samples have not arrived: nothing if the window is
  // to be complete, else silence too.
  std::optional<std::vector<float>> window(double start, std::size_t count, bool complete = true);
  // Drops what ended before a time.
  void forget(double before);
  // Begins anew, on another clock; the counters go on.
  void clear();

  AudioCounters counters;

 private:
  struct Chunk {
    double time;
    std::vector<float> samples;
    bool is_gap;
  };
  void append(Chunk chunk);

  int rate_;
  std::deque<Chunk> chunks_;
  std::optional<double> end_;  // when the next chunk is expected
  std::int64_t held_ = 0;
};

}  // namespace avsbg
