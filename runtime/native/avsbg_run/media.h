// Media files through FFmpeg's libraries: the rules of runtime/media for files whose clock makes no steps.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "fraction.h"

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libswresample/swresample.h>
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
  void operator()(SwrContext* one) const { swr_free(&one); }
};
template <typename T>
using Owned = std::unique_ptr<T, FreeAv>;
using FramePtr = std::shared_ptr<AVFrame>;

// The display of frames: transposed first, then flipped.
struct Orientation {
  bool transposed = false, flipped_x = false, flipped_y = false;
};

struct Track {
  int index = -1, number = 0;
  std::string codec, language;
};

struct VideoInfo {
  std::string path;
  int width = 0, height = 0;      // as displayed
  std::optional<Fraction> rate;   // if constant
  Fraction start;                 // the time stamp of the first frame
  std::optional<Fraction> stated_end, duration;
  bool end_is_of_file = false;
  Track video;
  std::optional<Track> audio;
  Orientation orientation;
};

// A file with the decoders of some of its tracks.
class Container {
 public:
  explicit Container(const std::string& path);

  AVFormatContext* format() const { return format_.get(); }
  AVStream* stream(int index) const { return format_->streams[index]; }
  // Opens a track's decoder; frames of all tracks that are open are returned by `next`.
  void open_decoder(int index, int threads);
  AVCodecContext* decoder(int index) const { return decoders_[static_cast<std::size_t>(index)].get(); }
  // The next decoded frame in the file's order; none at the end. Its track goes to `index`.
  FramePtr next(int& index);

 private:
  bool receive(std::size_t index);

  std::string path_;
  Owned<AVFormatContext> format_;
  std::vector<Owned<AVCodecContext>> decoders_;
  std::vector<std::int64_t> packets_;  // read of each track
  std::deque<std::pair<int, FramePtr>> ready_;
  bool ended_ = false, whole_ = true;
  Owned<AVPacket> packet_;
};

// Describes a video file. Tracks by number among those of their kind; none for those that players show.
VideoInfo probe(const std::string& path, std::optional<int> video_track, std::optional<int> audio_track);

// A frame as RGB, [height][width][3], turned the way it is displayed, in the size that the video began with.
std::vector<std::uint8_t> displayed(const AVFrame& frame, const VideoInfo& video);

struct ChosenFrame {
  std::int64_t second;
  Fraction time, length;  // when it begins, and how much of the second is there
  FramePtr frame;
};

// The frame that stands for each second of a video.
class FrameChooser {
 public:
  FrameChooser(const VideoInfo& video, int clip_seconds, double offset);
  std::optional<ChosenFrame> next();

 private:
  Fraction deadline(std::int64_t second) const;
  std::int64_t last_tick(std::int64_t second) const;

  VideoInfo video_;
  Container container_;
  int clip_seconds_;
  Fraction offset_;
  std::int64_t second_ = 0, limit_ = 0;
  FramePtr last_, coming_;  // the latest frame that may stand for the second, and the one after it
  Fraction end_;            // of the last frame, once the file has ended
  bool ended_ = false;
};

// The sound of a video from its first frame on: mono, resampled, without gaps.
class SoundReader {
 public:
  SoundReader(const VideoInfo& video, int rate);
  // The next samples; silence where the track has ended.
  std::vector<float> read(std::size_t count);

 private:
  void take(const AVFrame& frame);
  void place(const AVFrame& frame);
  void resample(const float* const* planes, int samples, int channels, int rate);
  void convert(const AVFrame* frame);
  void flush();
  void keep(const float* samples, std::size_t count);

  VideoInfo video_;
  Container container_;
  int rate_;
  Owned<SwrContext> resampler_;
  int in_format_ = -1, in_channels_ = 0, in_rate_ = 0;  // of the resampler
  std::vector<float> samples_;
  std::optional<Fraction> position_;  // from `start`, of the last frame that was placed
  std::int64_t since_ = 0;            // samples from there on
  int since_rate_ = 1;
  std::int64_t drop_ = 0;             // samples still to be dropped
  bool ended_ = false;
};

// The decoded pixels in another size or format.
FramePtr reformat(const AVFrame& frame, int width, int height, AVPixelFormat format);

Orientation orientation_of(const AVFrame& frame, const Orientation& otherwise);

}  // namespace avsbg_run
