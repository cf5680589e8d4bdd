// An MP4 file with a track of H.264 and one of AAC.
#pragma once

#include <map>

#include "media.h"

namespace avsbg_run {

struct FreeOutput {
  void operator()(AVFormatContext* one) const {
    if (one->pb != nullptr) avio_closep(&one->pb);
    avformat_free_context(one);
  }
};

// The colour space of a video's pixels, and their shape.
struct Appearance {
  AVColorPrimaries primaries = AVCOL_PRI_UNSPECIFIED;
  AVColorTransferCharacteristic transfer = AVCOL_TRC_UNSPECIFIED;
  AVColorSpace matrix = AVCOL_SPC_UNSPECIFIED;
  AVColorRange range = AVCOL_RANGE_UNSPECIFIED;
  AVRational pixel_aspect = {1, 1};
};

class Mp4Encoder {
 public:
  static constexpr int kTicks = 90000, kSoundRate = 48000;  // of time stamps of frames, and of sound

  Mp4Encoder(const std::string& path, int width, int height, const Appearance& appearance, AVRational rate, bool has_audio);

  // Encodes a frame of yuv420p at `ticks`, which is moved on where time stands still.
  void add_frame(AVFrame& frame, std::int64_t ticks, std::int64_t duration);
  // Encodes decoded sound of any kind that begins at a time, seconds.
  void add_sound(const AVFrame& frame, const Fraction& begin);
  void finish();

 private:
  AVCodecContext* open(const char* name, Owned<AVCodecContext>& context);
  void send(AVCodecContext* encoder, int track, const AVFrame* frame);
  void drain_sound(bool all);

  std::string path_;
  std::unique_ptr<AVFormatContext, FreeOutput> format_;
  Owned<AVCodecContext> video_, audio_;
  Owned<AVPacket> packet_;
  Owned<SwrContext> resampler_;
  std::vector<float> left_, right_;  // sound that waits for a whole packet
  std::map<std::int64_t, std::int64_t> durations_;  // of frames on their way through the encoder, by their time stamps
  std::int64_t last_ticks_ = -1, next_sample_ = AV_NOPTS_VALUE;
};

}  // namespace avsbg_run
