// Hardware decoders of video, as FFmpeg has them: runtime/media/hwaccel.py.
#pragma once

#include <memory>
#include <string>

extern "C" {
#include <libavcodec/avcodec.h>
}

namespace avsbg_run {

// Checks that FFmpeg knows the kind of `name`, KIND[:DEVICE] as in cuda:1 or vaapi:/dev/dri/renderD128. Throws MediaError.
void check_hwaccel(const std::string& name);

// The device that decodes the frames of one decoder. Nothing falls back to software.
class HardwareDecoder {
 public:
  // Opens the device for a context that is not open yet. Throws MediaError if it is not there, or not for that codec.
  HardwareDecoder(AVCodecContext* context, const AVCodec* codec, const std::string& name);
  HardwareDecoder(const HardwareDecoder&) = delete;
  HardwareDecoder& operator=(const HardwareDecoder&) = delete;

  // A decoded frame in the processor's memory. Throws MediaError.
  std::shared_ptr<AVFrame> download(const std::shared_ptr<AVFrame>& frame) const;
  // Throws MediaError if the device does not take what the packets hold.
  void check_taken() const;

 private:
  static AVPixelFormat choose_format(AVCodecContext* context, const AVPixelFormat* offered);

  const std::string name_, codec_;
  AVPixelFormat format_ = AV_PIX_FMT_NONE;
  bool is_refused_ = false;
};

}  // namespace avsbg_run
