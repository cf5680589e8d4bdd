// Media files through FFmpeg's libraries: the rules of runtime/media.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "clock.h"
#include "fraction.h"
#include "hwaccel.h"
#include "places.h"

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libswscale/swscale.h>
}

namespace avsbg_run {

// An error of a source or an output, and what to do about it.
class MediaError : public std::runtime_error {
 public:
  explicit MediaError(const std::string& message, const std::string& hint = "")
      : std::runtime_error(hint.empty() ? message : message + " " + hint) {}
};

std::string ffmpeg_error(int code);

struct FreeAv {
  void operator()(AVFrame* one) const { av_frame_free(&one); }
  void operator()(AVPacket* one) const { av_packet_free(&one); }
  void operator()(AVFormatContext* one) const { avformat_close_input(&one); }
  void operator()(AVCodecContext* one) const { avcodec_free_context(&one); }
  void operator()(SwsContext* one) const { sws_freeContext(one); }
};
template <typename T>
using Owned = std::unique_ptr<T, FreeAv>;
using FramePtr = std::shared_ptr<AVFrame>;

inline Fraction fraction(AVRational value) { return {value.num, value.den}; }

// The display of frames: transposed first, then flipped.
struct Orientation {
  bool transposed = false, flipped_x = false, flipped_y = false;
};

// The colour space of a video's pixels, and their shape.
struct Appearance {
  AVColorPrimaries primaries = AVCOL_PRI_UNSPECIFIED;
  AVColorTransferCharacteristic transfer = AVCOL_TRC_UNSPECIFIED;
  AVColorSpace matrix = AVCOL_SPC_UNSPECIFIED;
  AVColorRange range = AVCOL_RANGE_UNSPECIFIED;
  bool is_rgb = false;
  AVRational pixel_aspect = {1, 1};  // width by height, as displayed
};

struct Track {
  int index = -1, number = 0;
  std::string codec, language;
};

struct TrackNumbers {
  std::optional<int> video, audio;
};

struct VideoInfo {
  std::string path;               // or the name of a live source
  int width = 0, height = 0;      // as displayed
  std::optional<Fraction> rate;   // if constant
  std::optional<Fraction> mean_rate;
  Fraction start;                 // the time stamp of the first frame
  std::optional<Fraction> stated_end;
  bool end_is_of_file = false;
  Track video;
  std::optional<Track> audio;
  Orientation orientation;
  Appearance look;
  Clock clock;
  std::string hwaccel;            // the hardware decoder of its frames; empty for software
};

// Counts of what is passed over since it cannot be decoded; without one it is an error.
struct Damage {
  bool tolerates_video = true;
  std::int64_t video = 0, audio = 0;  // packets
  bool cut_short = false;
};

// A decoded frame or piece of sound, and the unit of its time stamps.
struct Decoded {
  FramePtr frame;
  bool is_video = true;
  AVRational unit{1, 1};

  bool has_time() const { return frame->pts != AV_NOPTS_VALUE; }
  Fraction time() const { return Fraction(frame->pts) * fraction(unit); }
};

// The decoded frames and sound of a source, in its order.
class FrameSource {
 public:
  virtual ~FrameSource() = default;
  virtual std::optional<Decoded> next() = 0;
};

class Decoder {
 public:
  // `threads`: 0 for FFmpeg's choice. `hwaccel`: a hardware decoder, if not empty. Throws MediaError, which names `source`.
  Decoder(const AVStream* track, int threads, const std::string& source, const std::string& hwaccel = "");
  // Decodes a packet, or without one what is left. Returns FFmpeg's status; where it is an error nothing is appended.
  int decode(const AVPacket* packet, std::vector<Decoded>& frames);
  void flush() { avcodec_flush_buffers(context_.get()); }
  AVCodecContext* context() const { return context_.get(); }

 private:
  std::unique_ptr<HardwareDecoder> hardware_;  // outlives the context, which calls it
  Owned<AVCodecContext> context_;
  AVRational unit_;
};

// A file with the decoders of some of its tracks.
class Container : public FrameSource {
 public:
  explicit Container(const std::string& path, Damage* damage = nullptr);
  // A file that was probed, and outlives this; its time stamps are joined to one clock.
  explicit Container(const VideoInfo& video, Damage* damage = nullptr);

  AVFormatContext* format() const { return format_.get(); }
  AVStream* stream(int index) const { return format_->streams[index]; }
  bool is_of(const char* format) const;
  bool has_steps() const { return (format_->iformat->flags & AVFMT_TS_DISCONT) != 0; }
  // Puts the packets of a format whose clock may make steps on one clock, which must outlive this.
  void join(const Clock& clock);
  // Opens a track's decoder; frames of all tracks that are open are returned by `next`.
  Decoder& open_decoder(int index, int threads);
  std::optional<Decoded> next() override;

 private:
  void read();
  void check_whole();
  void decode(int index, const AVPacket* packet);
  void check_step(const AVPacket* packet);

  std::string path_;
  Damage* damage_;
  const VideoInfo* video_ = nullptr;
  Owned<AVFormatContext> format_;
  std::map<int, Decoder> decoders_;
  std::map<int, std::int64_t> packets_;  // read of each track that is decoded
  std::set<bool> reached_;               // whether of frames, or of sound: of which some were decoded
  std::optional<ClockJoiner> joiner_;
  std::optional<Fraction> last_time_;    // of the video's packets
  std::deque<Decoded> ready_;
  bool ended_ = false, whole_ = true;
  Owned<AVPacket> packet_;
};

// The track to read of a kind: by number among those of its kind, else as players choose it; none if there is none.
std::optional<Track> choose_track(
    const AVFormatContext* format, AVMediaType type, const std::string& path, std::optional<int> number);

// Describes a video file. Throws MediaError.
VideoInfo probe(const std::string& path, const TrackNumbers& numbers, Damage* damage);

// Sets size, orientation and appearance by the first decoded frame.
void describe_pixels(VideoInfo& video, const AVFrame& first, const AVStream* stream, const AVCodecContext* decoder);

// A frame as RGB, [height][width][3], turned the way it is displayed, in the size that the video began with.
std::vector<std::uint8_t> displayed(const AVFrame& frame, const VideoInfo& video);

// The time that a frame is displayed, if it or else the track's rate says so, seconds.
Fraction frame_length(const AVFrame& frame, AVRational unit, std::optional<Fraction> mean_rate);

struct ChosenFrame {
  std::int64_t number;  // of the place
  Place place;
  Fraction time, length;  // when it begins, and how much of the place's second is there
  FramePtr frame;
};

// The places from a number on that count in a source that ends at `end`, and how much of each second is there.
std::vector<std::pair<Place, Fraction>> last_places(Places& places, std::int64_t number, const Fraction& end, int least);

// The frame that stands for each place of a video.
class FrameChooser {
 public:
  FrameChooser(const VideoInfo& video, const Places& places, Damage* damage);
  std::optional<ChosenFrame> next();

 private:
  std::int64_t last_tick(std::int64_t number);
  void end();

  const VideoInfo& video_;
  Container container_;
  Places places_;
  Damage* damage_;
  AVRational unit_;
  std::int64_t number_ = 0, limit_ = 0;
  FramePtr last_, coming_;  // the latest frame that may stand for the place, and the one after it
  std::deque<std::pair<Place, Fraction>> rest_;  // once the file has ended
  bool ended_ = false;
};

// The decoded pixels in another size or format.
FramePtr reformat(const AVFrame& frame, int width, int height, AVPixelFormat format);

Orientation orientation_of(const AVFrame& frame, const Orientation& otherwise);

}  // namespace avsbg_run
