// Video files that are written: the overlay, H.264 and AAC in MP4, and masks, FFV1 in Matroska.
#pragma once

#include <map>

#include "media.h"
#include "sound.h"

namespace avsbg_run {

struct FreeOutput {
  void operator()(AVFormatContext* one) const {
    if (one->pb != nullptr) avio_closep(&one->pb);
    avformat_free_context(one);
  }
};

// A file of encoded tracks.
class OutputFile {
 public:
  // `what` and `hint` for messages: what cannot be written, and what to do without it.
  OutputFile(const std::string& path, const char* format, const char* what, const char* hint);

  // A track's encoder, to be set up before `begin`.
  AVCodecContext* add_track(const char* codec);
  void begin(const char* movflags = nullptr);
  // Encodes a frame, or with none what is left. A frame's duration is that of its time stamp in `durations`.
  void send(std::size_t track, const AVFrame* frame);
  void finish();
  [[noreturn]] void fail(int code) const;

  std::map<std::int64_t, std::int64_t> durations;  // of the first track's frames on their way through the encoder

 private:
  std::string path_, what_, hint_;
  std::unique_ptr<AVFormatContext, FreeOutput> format_;
  std::vector<Owned<AVCodecContext>> encoders_;
  Owned<AVPacket> packet_;
};

class OverlayFile {
 public:
  static constexpr int kTicks = 90000, kSoundRate = 48000;  // of time stamps of frames, and of sound

  // `fragments`: the index is not held in memory, for videos without an end.
  OverlayFile(const std::string& path, int width, int height, const Appearance& appearance, const Fraction& rate,
              bool has_audio, bool fragments);

  // Encodes a frame of yuv420p that is displayed from `begin` to `end`, seconds; moved on where time stands still.
  void add_frame(AVFrame& frame, const Fraction& begin, const Fraction& end);
  // Encodes decoded sound of any kind that begins at a time, seconds.
  void add_sound(const AVFrame& frame, const Fraction& begin);
  void finish();

 private:
  void drain_sound(bool all);
  void convert(const AVFrame* frame);

  OutputFile file_;
  AVCodecContext* audio_ = nullptr;
  Resampler resampler_;
  int in_format_ = -1, in_channels_ = 0, in_rate_ = 0;  // of the resampler
  std::vector<float> left_, right_;                     // sound that waits for a whole packet
  std::int64_t last_ticks_ = -1, next_sample_ = AV_NOPTS_VALUE;
  std::optional<Fraction> sound_end_;
};

// masks.mkv: one lossless grey video.
class MaskVideo {
 public:
  MaskVideo(const std::string& path, int width, int height);
  // Of several masks at one time each is 1 ms after the one before.
  void add(const Fraction& time, const std::vector<std::uint8_t>& mask);
  void finish();

 private:
  OutputFile file_;
  int width_, height_;
  std::int64_t last_ = -1;
};

}  // namespace avsbg_run
