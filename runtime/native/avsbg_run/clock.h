// The clock of a file: if its time stamps start again or jump, they are joined to one clock, by the rules of
// runtime/media/clock.py. Transport streams that are written one after the other have such places.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "fraction.h"

extern "C" {
#include <libavformat/avformat.h>
}

namespace avsbg_run {

// Seconds to add to the time stamps of each track, a value for each stretch between two of its steps.
struct Clock {
  std::map<int, std::vector<Fraction>> offsets;  // by stream
  std::map<int, std::vector<Fraction>> begins;   // when those after the first begin, on the one clock, seconds

  // Steps that are joined, of the track that has the most.
  std::int64_t steps() const;
};

// Counts the steps that the clock of a track makes.
class StepCounter {
 public:
  std::size_t steps = 0;
  // Counts a step that the clock makes before this packet.
  void add(const AVPacket* packet, const Fraction& unit);

 private:
  std::optional<Fraction> end_;  // of the packet before, seconds
};

// Puts the packets of a file, from its begin on, on the one clock.
class ClockJoiner {
 public:
  explicit ClockJoiner(const Clock& clock);
  void join(AVPacket* packet, const Fraction& unit);

 private:
  const Clock& clock_;
  std::map<int, StepCounter> counters_;
};

// Reads a file to its end and finds the steps of its clock. `tracks` are indices of streams, the video's first.
Clock find_clock(AVFormatContext* format, const std::vector<int>& tracks);

// The decoding time of a packet, else its presentation time, seconds; `unit` is that of its time stamps.
std::optional<Fraction> packet_time(const AVPacket* packet, const Fraction& unit);

}  // namespace avsbg_run
