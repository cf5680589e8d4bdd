#include "clock.h"

#include <algorithm>
#include <cstdlib>

#include "media.h"

namespace avsbg_run {
namespace {

// A step back is one of the clock beyond this; decoding times never go back otherwise. A step ahead likewise; less is a
// loss of packets, or a frame that is displayed for long. Seconds.
const Fraction kStepBack(1, 10), kStepAhead(10);
// Of two tracks, steps that are one lie in the file within so many packets of each other, and begins within so many.
constexpr std::int64_t kNear = 100, kAtOnce = 10;

// A part of a track between two steps of its clock.
struct Stretch {
  std::int64_t place;  // of its first packet, among all of the file
  Fraction begin, end;
};

// The presentation time in the packet's own unit. Far from the decoding time, as before a step of an MPEG program
// stream, it is another packet's: then the latter.
std::int64_t display_ticks(const AVPacket* packet, const Fraction& unit) {
  if (packet->pts == AV_NOPTS_VALUE || packet->dts == AV_NOPTS_VALUE) return packet->pts;
  const Fraction apart = Fraction(std::abs(packet->pts - packet->dts)) * unit;
  return apart <= kStepAhead ? packet->pts : packet->dts;
}

std::vector<Fraction> joined(const std::vector<Stretch>& stretches) {
  std::vector<Fraction> offsets = {Fraction(0)};
  for (std::size_t i = 1; i < stretches.size(); ++i) {
    offsets.push_back(stretches[i - 1].end + offsets.back() - stretches[i].begin);
  }
  return offsets;
}

// The offsets of a track's stretches: those of the video's stretches that they belong to, else joined.
std::vector<Fraction> following(
    const std::vector<Stretch>& found, const std::vector<Stretch>& video, const std::vector<Fraction>& of_video) {
  std::vector<Fraction> offsets;
  std::size_t next = 0;  // of the video's stretches, after the one that the stretch before belongs to
  for (std::size_t number = 0; number < found.size(); ++number) {
    const std::int64_t place = found[number].place;
    if (number == 0) {  // it may begin late, with any of them
      std::size_t last = 0;
      for (std::size_t k = 0; k < video.size(); ++k) {
        if (video[k].place <= place + kAtOnce) last = k;
      }
      offsets.push_back(video.empty() ? Fraction(0) : of_video[last]);
      next = last + 1;
      continue;
    }
    std::size_t nearest = video.size();
    for (std::size_t k = next; k < video.size(); ++k) {
      if (nearest == video.size() || std::abs(video[k].place - place) < std::abs(video[nearest].place - place)) nearest = k;
    }
    if (nearest < video.size() && std::abs(video[nearest].place - place) <= kNear) {
      offsets.push_back(of_video[nearest]);
      next = nearest + 1;
    } else {
      offsets.push_back(found[number - 1].end + offsets.back() - found[number].begin);
    }
  }
  return offsets;
}

}  // namespace

std::int64_t Clock::steps() const {
  std::size_t most = 1;
  for (const auto& [index, stretches] : offsets) most = std::max(most, stretches.size());
  return static_cast<std::int64_t>(most) - 1;
}

std::optional<Fraction> packet_time(const AVPacket* packet, const Fraction& unit) {
  const std::int64_t ticks = packet->dts != AV_NOPTS_VALUE ? packet->dts : packet->pts;
  if (ticks == AV_NOPTS_VALUE || packet->size == 0) return std::nullopt;
  return Fraction(ticks) * unit;
}

void StepCounter::add(const AVPacket* packet, const Fraction& unit) {
  const std::optional<Fraction> time = packet_time(packet, unit);
  if (!time) return;
  if (end_) steps += *time - *end_ < Fraction(0) - kStepBack || *time - *end_ > kStepAhead;
  end_ = *time + Fraction(packet->duration) * unit;
}

ClockJoiner::ClockJoiner(const Clock& clock) : clock_(clock) {
  for (const auto& [index, offsets] : clock.offsets) counters_[index];
}

void ClockJoiner::join(AVPacket* packet, const Fraction& unit) {
  const auto counter = counters_.find(packet->stream_index);
  if (packet->size == 0 || counter == counters_.end()) return;
  const std::vector<Fraction>& offsets = clock_.offsets.at(packet->stream_index);
  counter->second.add(packet, unit);
  const Fraction offset = offsets[std::min(counter->second.steps, offsets.size() - 1)];
  const std::int64_t ticks = (offset / unit).round();
  const std::int64_t displayed = display_ticks(packet, unit);
  packet->pts = displayed == AV_NOPTS_VALUE ? displayed : displayed + ticks;
  if (packet->dts != AV_NOPTS_VALUE) packet->dts += ticks;
}

Clock find_clock(AVFormatContext* format, const std::vector<int>& tracks) {
  std::map<int, StepCounter> counters;
  std::map<int, std::vector<Stretch>> stretches;
  for (const int index : tracks) stretches[index];
  const Owned<AVPacket> packet(av_packet_alloc());
  std::int64_t place = -1;
  int status = 0;
  while ((status = av_read_frame(format, packet.get())) >= 0) {
    if (const auto found = stretches.find(packet->stream_index); found != stretches.end()) {
      ++place;
      const Fraction unit = fraction(format->streams[packet->stream_index]->time_base);
      if (const std::optional<Fraction> time = packet_time(packet.get(), unit)) {
        StepCounter& counter = counters[packet->stream_index];
        counter.add(packet.get(), unit);
        const std::int64_t ticks = display_ticks(packet.get(), unit);
        const Fraction begin = ticks == AV_NOPTS_VALUE ? *time : Fraction(ticks) * unit;
        const Fraction end = begin + Fraction(packet->duration) * unit;
        std::vector<Stretch>& parts = found->second;
        if (parts.size() <= counter.steps) {
          parts.push_back({place, begin, end});
        } else {
          parts.back().begin = std::min(begin, parts.back().begin);
          parts.back().end = std::max(end, parts.back().end);
        }
      }
    }
    av_packet_unref(packet.get());
  }
  Clock clock;
  if (status != AVERROR_EOF) return clock;  // said when the frames are read
  const std::vector<Stretch>& video = stretches.at(tracks.front());
  const std::vector<Fraction> of_video = joined(video);
  for (const auto& [index, parts] : stretches) {
    const std::vector<Fraction> offsets = index == tracks.front() ? of_video : following(parts, video, of_video);
    const bool moves = std::any_of(offsets.begin(), offsets.end(), [](const Fraction& one) { return !(one == Fraction(0)); });
    if (!moves && offsets.size() <= 1) continue;  // it is left as it is
    clock.offsets[index] = offsets;
    for (std::size_t i = 1; i < parts.size(); ++i) clock.begins[index].push_back(parts[i].begin + offsets[i]);
  }
  return clock;
}

}  // namespace avsbg_run
