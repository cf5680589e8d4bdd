/* A hardware decoder for tests, preloaded before FFmpeg's libraries: it decodes on the processor, and frames pass through a
   copy that it counts in the file $FAKE_HWACCEL_FRAMES. vdpau has a device that does not take what it is given. */
#include <libavcodec/avcodec.h>
#include <libavutil/hwcontext.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const AVCodecHWConfig* avcodec_get_hw_config(const AVCodec* codec, int index) {
  static const AVCodecHWConfig configs[] = {
      {AV_PIX_FMT_YUV420P, AV_CODEC_HW_CONFIG_METHOD_HW_DEVICE_CTX, AV_HWDEVICE_TYPE_VAAPI},
      {AV_PIX_FMT_GRAY8, AV_CODEC_HW_CONFIG_METHOD_HW_DEVICE_CTX, AV_HWDEVICE_TYPE_VDPAU},
  };
  return codec->id == AV_CODEC_ID_H264 && index < 2 ? &configs[index] : NULL;
}

int av_hwdevice_ctx_create(AVBufferRef** device, enum AVHWDeviceType type, const char* name, AVDictionary* options, int flags) {
  (void)type, (void)options, (void)flags;
  if (name != NULL && strcmp(name, "1") != 0) return AVERROR(ENODEV);
  *device = av_buffer_alloc(1);
  return 0;
}

int av_hwframe_transfer_data(AVFrame* copy, const AVFrame* frame, int flags) {
  (void)flags;
  FILE* const file = fopen(getenv("FAKE_HWACCEL_FRAMES"), "a");
  fputc('.', file);
  fclose(file);
  return av_frame_ref(copy, frame);
}
