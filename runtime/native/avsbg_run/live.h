// Sources without an end, cameras, microphones and network streams: runtime/media/sources.py and live.py.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

#include "channel.h"
#include "segmenter.h"
#include "sound.h"

namespace avsbg_run {

struct LiveSource {
  std::string name, address;  // as the user wrote it, and as FFmpeg opens it
  std::string device;         // FFmpeg's input device; empty for an address
  std::map<std::string, std::string> options;
  bool waits = false;  // for a reader that is late, so that nothing need be dropped
};

// The live source that a text names; nothing for a path. Throws MediaError for addresses that cannot be read.
std::optional<LiveSource> parse_live(const std::string& text);

// An open source, each of whose reads is given up after a time, or when `stop` says so.
class LiveInput {
 public:
  LiveInput(const LiveSource& source, const std::function<bool()>& stop);
  AVFormatContext* format() const { return format_.get(); }
  // The next packet; none at the end, or where it was stopped. Throws MediaError where the source fails.
  std::shared_ptr<AVPacket> read();
  const LiveSource source;

 private:
  using SteadyClock = std::chrono::steady_clock;
  static int is_over(void* self);

  const std::function<bool()> stop_;
  std::atomic<SteadyClock::time_point> deadline_;
  Owned<AVFormatContext> format_;
};

// A packet of one of a live source's tracks.
struct LivePacket {
  std::shared_ptr<AVPacket> packet;
  bool is_video = true;
};

// Leaves out what comes before the first frame, or piece of sound, with a time stamp: RTP has none until its clock is known.
class UntimedFilter {
 public:
  void apply(std::vector<Decoded>& frames);

 private:
  int left_out_ = 0;  // the most there may be once one had a time stamp: one without is an error from then on
};

// A part of what the overlay is made of: packets of frames, which it decodes itself, since they wait for masks, and decoded sound.
struct OverlayItem {
  std::shared_ptr<AVPacket> packet;
  Decoded sound;  // without a frame where it is a packet
};

class LiveReader {
 public:
  // `hwaccel`: the hardware decoder of its frames, if not empty.
  LiveReader(const LiveSource& source, const std::optional<LiveSource>& microphone, const TrackNumbers& numbers,
             const std::string& hwaccel, std::optional<double> duration, std::function<bool()> stop);
  ~LiveReader();

  // Reads the source until it ends or is told to, and hands over its samples; those who take none return false. A source
  // that fails ends too: see `failure`. Packets go into `packets` as well, if there is one.
  void read(const avsbg::Model& model, bool silent, const Fraction& rate, Channel<OverlayItem>* packets,
            const std::function<bool(Sample)>& take);
  // The decoded frames and sound of packets.
  std::unique_ptr<FrameSource> frames(Channel<OverlayItem>& packets) const;

  VideoInfo video;
  std::string failure;  // why it ended, if it was not meant to
  std::int64_t damaged = 0, late_sound = 0;  // packets passed over; seconds whose sound did not come in time

 private:
  std::optional<LivePacket> next_packet();
  std::optional<LivePacket> read_from(std::size_t input);
  void pump(std::size_t input);
  void find_first_frame();
  std::vector<Decoded> decode(bool is_video, const AVPacket* packet);

  const std::function<bool()> stop_;
  const std::optional<double> duration_;
  std::atomic<bool> closed_{false};
  std::vector<std::unique_ptr<LiveInput>> inputs_;  // the source, and the microphone if it is another
  std::optional<Decoder> frame_decoder_, sound_decoder_;
  UntimedFilter untimed_frames_, untimed_sound_;
  std::deque<LivePacket> held_;                     // read before the first frame was known
  std::vector<std::optional<LivePacket>> heads_;    // of inputs without a pace of their own, the next packets
  Channel<LivePacket> merged_;                      // of inputs that are read at the same time
  std::atomic<int> pumping_{0};
  std::mutex failure_mutex_;
  std::vector<std::unique_ptr<Worker>> pumps_;
};

}  // namespace avsbg_run
