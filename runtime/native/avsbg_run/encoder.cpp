#include "encoder.h"

#include <algorithm>
#include <cstring>

extern "C" {
#include <libavutil/channel_layout.h>
#include <libavutil/opt.h>
}

namespace avsbg_run {
namespace {

#if LIBAVUTIL_VERSION_INT >= AV_VERSION_INT(57, 28, 100)
void set_stereo(AVCodecContext* context) { av_channel_layout_default(&context->ch_layout, 2); }
void set_stereo(AVFrame* frame) { av_channel_layout_default(&frame->ch_layout, 2); }
SwrContext* make_stereo(const AVFrame& frame, int rate) {
  SwrContext* made = nullptr;
  AVChannelLayout stereo;
  av_channel_layout_default(&stereo, 2);
  // Before FFmpeg 6 it took layouts that it does not change as if it did.
  auto* const layout = const_cast<AVChannelLayout*>(&frame.ch_layout);
  swr_alloc_set_opts2(&made, &stereo, AV_SAMPLE_FMT_FLTP, rate, layout, static_cast<AVSampleFormat>(frame.format),
                      frame.sample_rate, 0, nullptr);
  return made;
}
#else
void set_stereo(AVCodecContext* context) {
  context->channel_layout = AV_CH_LAYOUT_STEREO;
  context->channels = 2;
}
void set_stereo(AVFrame* frame) {
  frame->channel_layout = AV_CH_LAYOUT_STEREO;
  frame->channels = 2;
}
SwrContext* make_stereo(const AVFrame& frame, int rate) {
  const auto layout = static_cast<std::int64_t>(frame.channel_layout);
  return swr_alloc_set_opts(nullptr, AV_CH_LAYOUT_STEREO, AV_SAMPLE_FMT_FLTP, rate,
                            layout != 0 ? layout : av_get_default_channel_layout(frame.channels),
                            static_cast<AVSampleFormat>(frame.format), frame.sample_rate, 0, nullptr);
}
#endif

}  // namespace

Mp4Encoder::Mp4Encoder(const std::string& path, int width, int height, const Appearance& appearance, AVRational rate,
                       bool has_audio)
    : path_(path), packet_(av_packet_alloc()) {
  AVFormatContext* format = nullptr;
  avformat_alloc_output_context2(&format, nullptr, "mp4", ("file:" + path).c_str());
  if (format == nullptr) throw MediaError("this FFmpeg writes no MP4.", "Use --no-overlay.");
  format_.reset(format);
  AVCodecContext* const video = open("libx264", video_);
  video->width = width;
  video->height = height;
  video->pix_fmt = AV_PIX_FMT_YUV420P;
  video->time_base = {1, kTicks};
  video->framerate = rate;
  video->sample_aspect_ratio = appearance.pixel_aspect;
  video->color_primaries = appearance.primaries;
  video->color_trc = appearance.transfer;
  video->colorspace = appearance.matrix;
  video->color_range = appearance.range;
  // With B frames, decoding runs ahead by some frames, and MP4 states the length by the times of decoding.
  av_opt_set(video->priv_data, "crf", "20", 0);
  av_opt_set(video->priv_data, "preset", "veryfast", 0);
  video->max_b_frames = 0;
  if (has_audio) {
    AVCodecContext* const audio = open("aac", audio_);
    audio->sample_fmt = AV_SAMPLE_FMT_FLTP;
    audio->sample_rate = kSoundRate;
    audio->time_base = {1, kSoundRate};
    set_stereo(audio);
  }
  for (AVCodecContext* const encoder : {video_.get(), audio_.get()}) {
    if (encoder == nullptr) continue;
    if ((format->oformat->flags & AVFMT_GLOBALHEADER) != 0) encoder->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    const int result = avcodec_open2(encoder, encoder->codec, nullptr);
    if (result < 0) throw MediaError("the overlay cannot be encoded: " + ffmpeg_error(result) + ".", "Use --no-overlay.");
    AVStream* const stream = avformat_new_stream(format, nullptr);
    if (stream == nullptr) throw std::bad_alloc();
    avcodec_parameters_from_context(stream->codecpar, encoder);
    stream->time_base = encoder->time_base;
    stream->sample_aspect_ratio = encoder->sample_aspect_ratio;
  }
  int result = avio_open(&format->pb, ("file:" + path).c_str(), AVIO_FLAG_WRITE);
  if (result >= 0) result = avformat_write_header(format, nullptr);
  if (result < 0) throw MediaError("the overlay " + path + " cannot be written: " + ffmpeg_error(result) + ".");
}

AVCodecContext* Mp4Encoder::open(const char* name, Owned<AVCodecContext>& context) {
  const AVCodec* const codec = avcodec_find_encoder_by_name(name);
  if (codec == nullptr) {
    throw MediaError(std::string("this FFmpeg has no encoder ") + name + ", which the overlay needs.", "Use --no-overlay.");
  }
  context.reset(avcodec_alloc_context3(codec));
  return context.get();
}

void Mp4Encoder::send(AVCodecContext* encoder, int track, const AVFrame* frame) {
  int result = avcodec_send_frame(encoder, frame);
  while (result >= 0) {
    result = avcodec_receive_packet(encoder, packet_.get());
    if (result == AVERROR(EAGAIN) || result == AVERROR_EOF) return;
    if (result < 0) break;
    packet_->stream_index = track;
    // Not every encoder hands on how long a frame lasts, and MP4 leaves out a last one that lasts for nothing.
    if (const auto found = durations_.find(packet_->pts); track == 0 && found != durations_.end()) {
      packet_->duration = found->second;
      durations_.erase(found);
    }
    av_packet_rescale_ts(packet_.get(), encoder->time_base, format_->streams[track]->time_base);
    result = av_interleaved_write_frame(format_.get(), packet_.get());
  }
  throw MediaError("the overlay " + path_ + " cannot be written: " + ffmpeg_error(result) + ".");
}

void Mp4Encoder::add_frame(AVFrame& frame, std::int64_t ticks, std::int64_t duration) {
  // Encoders refuse times that stand still, which damaged files have.
  last_ticks_ = std::max(last_ticks_ + 1, ticks);
  frame.pts = last_ticks_;
  durations_[last_ticks_] = duration;
  frame.pict_type = AV_PICTURE_TYPE_NONE;
  send(video_.get(), 0, &frame);
}

void Mp4Encoder::add_sound(const AVFrame& frame, const Fraction& begin) {
  if (!audio_) return;
  const std::int64_t at = (begin * Fraction(kSoundRate)).round();
  // Time stamps jitter; what is further off is a gap.
  if (next_sample_ == AV_NOPTS_VALUE || at > next_sample_ + static_cast<std::int64_t>(left_.size()) + kSoundRate / 10) {
    drain_sound(true);
    next_sample_ = at;
  }
  if (!resampler_) {
    resampler_.reset(make_stereo(frame, kSoundRate));
    if (!resampler_ || swr_init(resampler_.get()) < 0) throw MediaError("the sound cannot be resampled.", "Use --no-overlay.");
  }
  const auto room = static_cast<int>(swr_get_out_samples(resampler_.get(), frame.nb_samples));
  const std::size_t have = left_.size();
  left_.resize(have + static_cast<std::size_t>(room));
  right_.resize(left_.size());
  std::uint8_t* out[] = {reinterpret_cast<std::uint8_t*>(left_.data() + have),
                         reinterpret_cast<std::uint8_t*>(right_.data() + have)};
  const int made = swr_convert(resampler_.get(), out, room, const_cast<const std::uint8_t**>(frame.extended_data), frame.nb_samples);
  if (made < 0) throw MediaError("the sound cannot be resampled: " + ffmpeg_error(made), "Use --no-overlay.");
  left_.resize(have + static_cast<std::size_t>(made));
  right_.resize(left_.size());
  drain_sound(false);
}

void Mp4Encoder::drain_sound(bool all) {
  if (!audio_) return;
  const auto whole = static_cast<std::size_t>(audio_->frame_size);
  while (left_.size() >= whole || (all && !left_.empty())) {
    const std::size_t count = std::min(whole, left_.size());
    Owned<AVFrame> frame(av_frame_alloc());
    frame->format = AV_SAMPLE_FMT_FLTP;
    frame->nb_samples = static_cast<int>(count);
    frame->sample_rate = kSoundRate;
    set_stereo(frame.get());
    if (av_frame_get_buffer(frame.get(), 0) < 0) throw std::bad_alloc();
    std::memcpy(frame->data[0], left_.data(), count * sizeof(float));
    std::memcpy(frame->data[1], right_.data(), count * sizeof(float));
    left_.erase(left_.begin(), left_.begin() + static_cast<std::ptrdiff_t>(count));
    right_.erase(right_.begin(), right_.begin() + static_cast<std::ptrdiff_t>(count));
    frame->pts = next_sample_;
    next_sample_ += static_cast<std::int64_t>(count);
    send(audio_.get(), 1, frame.get());
  }
}

void Mp4Encoder::finish() {
  drain_sound(true);
  send(video_.get(), 0, nullptr);
  if (audio_) send(audio_.get(), 1, nullptr);
  const int result = av_write_trailer(format_.get());
  if (result < 0) throw MediaError("the overlay " + path_ + " cannot be written: " + ffmpeg_error(result) + ".");
}

}  // namespace avsbg_run
