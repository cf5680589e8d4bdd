#include "hwaccel.h"

#include "media.h"

extern "C" {
#include <libavutil/hwcontext.h>
}

namespace avsbg_run {
namespace {

const char* const kSoftware = "Leave out --hwaccel to decode on the processor.";

std::string kind_of(const std::string& name) { return name.substr(0, name.find(':')); }

}  // namespace

void check_hwaccel(const std::string& name) {
  if (av_hwdevice_find_type_by_name(kind_of(name).c_str()) != AV_HWDEVICE_TYPE_NONE) return;
  std::string known;
  for (AVHWDeviceType type = AV_HWDEVICE_TYPE_NONE; (type = av_hwdevice_iterate_types(type)) != AV_HWDEVICE_TYPE_NONE;) {
    known += (known.empty() ? "" : ", ") + std::string(av_hwdevice_get_type_name(type));
  }
  throw MediaError("this FFmpeg (" + std::string(av_version_info()) + ") has no hardware decoders of the kind '" + kind_of(name) + "'.",
                   (known.empty() ? "It has none. " : "It has: " + known + ". ") + kSoftware);
}

HardwareDecoder::HardwareDecoder(AVCodecContext* context, const AVCodec* codec, const std::string& name)
    : name_(name), codec_(codec->name) {
  check_hwaccel(name);
  const AVHWDeviceType type = av_hwdevice_find_type_by_name(kind_of(name).c_str());
  const AVCodecHWConfig* config = nullptr;
  for (int i = 0; (config = avcodec_get_hw_config(codec, i)) != nullptr; ++i) {
    if (config->device_type == type && (config->methods & AV_CODEC_HW_CONFIG_METHOD_HW_DEVICE_CTX) != 0) break;
  }
  if (config == nullptr) {
    throw MediaError("no decoder of " + name + " can decode " + codec_ + ", the codec of the video track.", kSoftware);
  }
  format_ = config->pix_fmt;
  const std::string device = name.find(':') == std::string::npos ? "" : name.substr(name.find(':') + 1);
  const int result = av_hwdevice_ctx_create(&context->hw_device_ctx, type, device.empty() ? nullptr : device.c_str(), nullptr, 0);
  if (result < 0) throw MediaError("the device of " + name + " cannot be opened: " + ffmpeg_error(result) + ".", kSoftware);
  context->opaque = this;
  context->get_format = choose_format;
}

AVPixelFormat HardwareDecoder::choose_format(AVCodecContext* context, const AVPixelFormat* offered) {
  auto& decoder = *static_cast<HardwareDecoder*>(context->opaque);
  for (; *offered != AV_PIX_FMT_NONE; ++offered) {
    if (*offered == decoder.format_) return *offered;
  }
  decoder.is_refused_ = true;
  return AV_PIX_FMT_NONE;
}

void HardwareDecoder::check_taken() const {
  if (is_refused_) throw MediaError("no decoder of " + name_ + " can decode this " + codec_ + ", its profile or its size.", kSoftware);
}

FramePtr HardwareDecoder::download(const FramePtr& frame) const {
  FramePtr copy(av_frame_alloc(), FreeAv());
  int result = frame->format == format_ ? av_hwframe_transfer_data(copy.get(), frame.get(), 0) : AVERROR(EINVAL);
  if (result >= 0) result = av_frame_copy_props(copy.get(), frame.get());
  if (result < 0) throw MediaError("a frame that " + name_ + " decoded cannot be copied: " + ffmpeg_error(result) + ".", kSoftware);
  return copy;
}

}  // namespace avsbg_run
