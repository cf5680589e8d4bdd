#include "encoder.h"

#include <algorithm>
#include <cstring>

extern "C" {
#include <libavutil/channel_layout.h>
#include <libavutil/opt.h>
}

namespace avsbg_run {
namespace {

const char* const kOverlay = "the overlay";
const char* const kWithout = "Use --no-overlay.";

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

OutputFile::OutputFile(const std::string& path, const char* format, const char* what, const char* hint)
    : path_(path), what_(what), hint_(hint), packet_(av_packet_alloc()) {
  AVFormatContext* opened = nullptr;
  avformat_alloc_output_context2(&opened, nullptr, format, ("file:" + path).c_str());
  if (opened == nullptr) throw MediaError("this FFmpeg does not write " + std::string(format) + ".", hint_);
  format_.reset(opened);
}

AVCodecContext* OutputFile::add_track(const char* name) {
  const AVCodec* const codec = avcodec_find_encoder_by_name(name);
  if (codec == nullptr) {
    throw MediaError(std::string("this FFmpeg has no encoder ") + name + ", which " + what_ + " needs.", hint_);
  }
  encoders_.emplace_back(avcodec_alloc_context3(codec));
  return encoders_.back().get();
}

void OutputFile::begin(const char* movflags) {
  for (const Owned<AVCodecContext>& encoder : encoders_) {
    if ((format_->oformat->flags & AVFMT_GLOBALHEADER) != 0) encoder->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    const int result = avcodec_open2(encoder.get(), encoder->codec, nullptr);
    if (result < 0) throw MediaError(what_ + " cannot be encoded: " + ffmpeg_error(result) + ".", hint_);
    AVStream* const stream = avformat_new_stream(format_.get(), nullptr);
    if (stream == nullptr) throw std::bad_alloc();
    avcodec_parameters_from_context(stream->codecpar, encoder.get());
    stream->time_base = encoder->time_base;
    stream->sample_aspect_ratio = encoder->sample_aspect_ratio;
  }
  AVDictionary* options = nullptr;
  if (movflags != nullptr) av_dict_set(&options, "movflags", movflags, 0);
  int result = avio_open(&format_->pb, ("file:" + path_).c_str(), AVIO_FLAG_WRITE);
  if (result >= 0) result = avformat_write_header(format_.get(), &options);
  av_dict_free(&options);
  if (result < 0) fail(result);
}

void OutputFile::send(std::size_t track, const AVFrame* frame) {
  AVCodecContext* const encoder = encoders_[track].get();
  int result = avcodec_send_frame(encoder, frame);
  while (result >= 0) {
    result = avcodec_receive_packet(encoder, packet_.get());
    if (result == AVERROR(EAGAIN) || result == AVERROR_EOF) return;
    if (result < 0) break;
    packet_->stream_index = static_cast<int>(track);
    // Not every encoder hands on how long a frame lasts, and MP4 leaves out a last one that lasts for nothing.
    if (const auto found = durations.find(packet_->pts); track == 0 && found != durations.end()) {
      packet_->duration = found->second;
      durations.erase(found);
    }
    av_packet_rescale_ts(packet_.get(), encoder->time_base, format_->streams[track]->time_base);
    result = av_interleaved_write_frame(format_.get(), packet_.get());
  }
  fail(result);
}

void OutputFile::finish() {
  for (std::size_t track = 0; track < encoders_.size(); ++track) send(track, nullptr);
  const int result = av_write_trailer(format_.get());
  if (result < 0) fail(result);
}

void OutputFile::fail(int code) const { throw MediaError(what_ + " " + path_ + " cannot be written: " + ffmpeg_error(code) + "."); }

OverlayFile::OverlayFile(const std::string& path, int width, int height, const Appearance& appearance,
                         const Fraction& rate, bool has_audio, bool fragments)
    : file_(path, "mp4", kOverlay, kWithout) {
  AVCodecContext* const video = file_.add_track("libx264");
  video->width = width;
  video->height = height;
  video->pix_fmt = AV_PIX_FMT_YUV420P;
  video->time_base = {1, kTicks};
  video->framerate = {static_cast<int>(rate.num()), static_cast<int>(rate.den())};
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
    audio_ = file_.add_track("aac");
    audio_->sample_fmt = AV_SAMPLE_FMT_FLTP;
    audio_->sample_rate = kSoundRate;
    audio_->time_base = {1, kSoundRate};
    set_stereo(audio_);
  }
  file_.begin(fragments ? "frag_keyframe+empty_moov+default_base_moof" : nullptr);
}

void OverlayFile::add_frame(AVFrame& frame, const Fraction& begin, const Fraction& end) {
  const auto ticks = [](const Fraction& time) { return (time * Fraction(kTicks)).round(); };
  // Encoders refuse times that stand still, which damaged files have.
  last_ticks_ = std::max(last_ticks_ + 1, ticks(begin));
  frame.pts = last_ticks_;
  file_.durations[last_ticks_] = std::max<std::int64_t>(1, ticks(end) - last_ticks_);
  frame.pict_type = AV_PICTURE_TYPE_NONE;
  file_.send(0, &frame);
}

void OverlayFile::add_sound(const AVFrame& frame, const Fraction& begin) {
  if (audio_ == nullptr) return;
  const Fraction length(frame.nb_samples, frame.sample_rate);
  // Sound that lies for the greater part before the end of the sound so far is left out, as where two recordings are joined.
  if (sound_end_ && begin < *sound_end_ - length / Fraction(2)) return;
  const Fraction start = sound_end_ ? std::max(begin, *sound_end_) : begin;
  sound_end_ = start + length;
  const std::int64_t at = (start * Fraction(kSoundRate)).round();
  // Time stamps jitter; what is further off is a gap.
  if (next_sample_ == AV_NOPTS_VALUE || at > next_sample_ + static_cast<std::int64_t>(left_.size()) + kSoundRate / 10) {
    drain_sound(true);
    next_sample_ = at;
  }
  // A broadcast goes from stereo to 5.1, and back.
  if (!resampler_ || in_format_ != frame.format || in_channels_ != channels_of(frame) || in_rate_ != frame.sample_rate) {
    if (resampler_) convert(nullptr);
    resampler_.reset(make_stereo(frame, kSoundRate));
    if (!resampler_ || swr_init(resampler_.get()) < 0) throw MediaError("the sound cannot be resampled.", kWithout);
    in_format_ = frame.format;
    in_channels_ = channels_of(frame);
    in_rate_ = frame.sample_rate;
  }
  convert(&frame);
  drain_sound(false);
}

// Resamples a frame of sound, or with none what is left.
void OverlayFile::convert(const AVFrame* frame) {
  const int given = frame == nullptr ? 0 : frame->nb_samples;
  const auto room = static_cast<int>(swr_get_out_samples(resampler_.get(), given));
  const std::size_t have = left_.size();
  left_.resize(have + static_cast<std::size_t>(room));
  right_.resize(left_.size());
  std::uint8_t* out[] = {reinterpret_cast<std::uint8_t*>(left_.data() + have),
                         reinterpret_cast<std::uint8_t*>(right_.data() + have)};
  auto** const in = frame == nullptr ? nullptr : const_cast<const std::uint8_t**>(frame->extended_data);
  const int made = swr_convert(resampler_.get(), out, room, in, given);
  if (made < 0) throw MediaError("the sound cannot be resampled: " + ffmpeg_error(made), kWithout);
  left_.resize(have + static_cast<std::size_t>(made));
  right_.resize(left_.size());
}

void OverlayFile::drain_sound(bool all) {
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
    file_.send(1, frame.get());
  }
}

void OverlayFile::finish() {
  if (audio_ != nullptr) drain_sound(true);
  file_.finish();
}

MaskVideo::MaskVideo(const std::string& path, int width, int height)
    : file_(path, "matroska", "the mask video", "Use --masks png."), width_(width), height_(height) {
  AVCodecContext* const video = file_.add_track("ffv1");
  video->width = width;
  video->height = height;
  video->pix_fmt = AV_PIX_FMT_GRAY8;
  video->time_base = {1, 1000};
  video->framerate = {1, 1};
  file_.begin();
}

void MaskVideo::add(const Fraction& time, const std::vector<std::uint8_t>& mask) {
  Owned<AVFrame> frame(av_frame_alloc());
  frame->format = AV_PIX_FMT_GRAY8;
  frame->width = width_;
  frame->height = height_;
  if (av_frame_get_buffer(frame.get(), 0) < 0) throw std::bad_alloc();
  for (int y = 0; y < height_; ++y) {
    std::memcpy(frame->data[0] + static_cast<std::ptrdiff_t>(y) * frame->linesize[0],
                mask.data() + static_cast<std::ptrdiff_t>(y) * width_, static_cast<std::size_t>(width_));
  }
  last_ = std::max(last_ + 1, (time * Fraction(1000)).round());
  frame->pts = last_;
  file_.send(0, frame.get());
}

void MaskVideo::finish() { file_.finish(); }

}  // namespace avsbg_run
