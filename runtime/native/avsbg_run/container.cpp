#include <algorithm>
#include <cstring>
#include <filesystem>
#include <set>

#include "media.h"

extern "C" {
#include <libavutil/pixdesc.h>
}

namespace avsbg_run {
namespace {

const char* const kRepair = "Fetch or record the file again; `ffmpeg -i FILE NEW.mp4` keeps what is left of it.";
const std::set<std::string> kStillCodecs = {"mjpeg", "png", "apng", "bmp", "gif", "webp", "tiff", "jpeg2000", "jpegxl"};
// A file's clock, in a format that knows no steps, seconds: decoding times do not go back, and a frame that is displayed
// for longer than this has sound beside it.
const Fraction kLargestStepBack(1), kLargestStepAhead(60);

std::optional<Fraction> tagged_duration(const AVStream* stream) {
  const AVDictionaryEntry* const tag = av_dict_get(stream->metadata, "DURATION", nullptr, 0);
  int hours = 0, minutes = 0, seconds = 0, digits = 0;
  char rest[16] = "";
  if (tag == nullptr || std::sscanf(tag->value, "%6d:%2d:%2d.%15[0-9]", &hours, &minutes, &seconds, rest) < 3) {
    return std::nullopt;
  }
  std::int64_t scale = 1;
  for (digits = 0; rest[digits] != '\0'; ++digits) scale *= 10;
  return Fraction(std::int64_t{3600} * hours + 60 * minutes + seconds) + Fraction(std::atoll(rest), scale);
}

bool is_still(const AVStream* stream) {
  if (stream->codecpar->codec_type != AVMEDIA_TYPE_VIDEO) return false;
  if (stream->nb_frames == 1) return true;
  if (const auto seconds = tagged_duration(stream)) return *seconds < Fraction(1, 5);
  return stream->nb_frames == 0 && kStillCodecs.count(avcodec_get_name(stream->codecpar->codec_id)) != 0;
}

void find_end(VideoInfo& video, const Container& container, const AVStream* stream) {
  const AVFormatContext* const format = container.format();
  const Fraction unit = fraction(stream->time_base);
  const Fraction begin = Fraction(stream->start_time == AV_NOPTS_VALUE ? 0 : stream->start_time) * unit;
  if (stream->duration != AV_NOPTS_VALUE && (container.is_of("mp4") || container.is_of("avi") || container.is_of("mxf"))) {
    Fraction stated = Fraction(stream->duration) * unit;
    if (container.is_of("avi") && stream->avg_frame_rate.num > 0) {
      stated = std::max(stated, Fraction(stream->nb_frames) / fraction(stream->avg_frame_rate));
    }
    video.stated_end = begin + stated;
  } else if (const auto tagged = tagged_duration(stream)) {
    video.stated_end = tagged;
  } else if (format->duration != AV_NOPTS_VALUE && !container.has_steps()) {
    const std::int64_t first = format->start_time == AV_NOPTS_VALUE ? 0 : format->start_time;
    video.stated_end = Fraction(format->duration, AV_TIME_BASE) + Fraction(first, AV_TIME_BASE);
    video.end_is_of_file = true;
  }
}

bool is_rgb(int format) {
  const AVPixFmtDescriptor* const described = av_pix_fmt_desc_get(static_cast<AVPixelFormat>(format));
  return described != nullptr && (described->flags & (AV_PIX_FMT_FLAG_RGB | AV_PIX_FMT_FLAG_PAL)) != 0;
}

Orientation parse_matrix(const std::uint8_t* data) {
  std::int32_t m[9];
  std::memcpy(m, data, sizeof m);
  const auto size = [&](int i) { return std::abs(static_cast<std::int64_t>(m[i])); };
  if (size(0) + size(4) >= size(1) + size(3)) return {false, m[0] < 0, m[4] < 0};
  return {true, m[3] < 0, m[1] < 0};
}

// Of frames that carry no display matrix of their own: FFmpeg before 7 leaves it with the track.
Orientation stream_orientation(const AVStream* stream) {
#if LIBAVCODEC_VERSION_MAJOR >= 61
  const AVPacketSideData* const side = av_packet_side_data_get(
      stream->codecpar->coded_side_data, stream->codecpar->nb_coded_side_data, AV_PKT_DATA_DISPLAYMATRIX);
  return side == nullptr || side->size < 36 ? Orientation{} : parse_matrix(side->data);
#else
  const std::uint8_t* const data = av_stream_get_side_data(stream, AV_PKT_DATA_DISPLAYMATRIX, nullptr);
  return data == nullptr ? Orientation{} : parse_matrix(data);
#endif
}

// Whether the sound stops with the frames at `begin` and goes on at `end`, seconds of the file's clock.
bool sound_steps(const VideoInfo& video, const Fraction& begin, const Fraction& end) {
  if (!video.audio) return false;
  const Container container(video.path);
  const Fraction unit = fraction(container.stream(video.audio->index)->time_base);
  av_seek_frame(container.format(), video.audio->index, (begin / unit).floor(), AVSEEK_FLAG_BACKWARD);
  const Owned<AVPacket> packet(av_packet_alloc());
  while (av_read_frame(container.format(), packet.get()) >= 0) {
    const bool is_sound = packet->stream_index == video.audio->index;
    const std::optional<Fraction> time = is_sound ? packet_time(packet.get(), unit) : std::nullopt;
    av_packet_unref(packet.get());
    if (time && *time > begin + Fraction(1)) return *time > end - Fraction(1);
  }
  return false;
}

}  // namespace

std::optional<Track> choose_track(
    const AVFormatContext* format, AVMediaType type, const std::string& path, std::optional<int> number) {
  const std::string kind = type == AVMEDIA_TYPE_VIDEO ? "video" : "audio";
  std::vector<const AVStream*> streams;
  for (unsigned i = 0; i < format->nb_streams; ++i) {
    if (format->streams[i]->codecpar->codec_type == type) streams.push_back(format->streams[i]);
  }
  const auto decodable = [](const AVStream* one) { return avcodec_find_decoder(one->codecpar->codec_id) != nullptr; };
  const AVStream* best = nullptr;
  int place = 0;
  if (number) {
    if (*number < 0 || static_cast<std::size_t>(*number) >= streams.size()) {
      throw MediaError(path + " has no " + kind + " track " + std::to_string(*number) + ": it has " +
                       std::to_string(streams.size()) + ".", "See `ffprobe`, and --" + kind + "-track.");
    }
    best = streams[static_cast<std::size_t>(*number)];
    place = *number;
    if (!decodable(best)) {
      throw MediaError("the " + kind + " track " + std::to_string(place) + " of " + path + " cannot be decoded.",
                       "Choose another one with --" + kind + "-track.");
    }
  } else {
    int best_rank = 4;
    for (std::size_t i = 0; i < streams.size(); ++i) {
      if (!decodable(streams[i]) || (streams[i]->disposition & AV_DISPOSITION_ATTACHED_PIC) != 0) continue;
      const int rank = 2 * is_still(streams[i]) + ((streams[i]->disposition & AV_DISPOSITION_DEFAULT) == 0);
      if (rank < best_rank) {
        best = streams[i];
        best_rank = rank;
        place = static_cast<int>(i);
      }
    }
  }
  if (best == nullptr) return std::nullopt;
  const AVDictionaryEntry* const tag = av_dict_get(best->metadata, "language", nullptr, 0);
  const std::string language = tag == nullptr || std::strcmp(tag->value, "und") == 0 ? "" : tag->value;
  return Track{best->index, place, avcodec_find_decoder(best->codecpar->codec_id)->name, language};
}

std::string ffmpeg_error(int code) {
  char text[AV_ERROR_MAX_STRING_SIZE];
  return av_strerror(code, text, sizeof text) == 0 ? text : "error " + std::to_string(code);
}

Decoder::Decoder(const AVStream* track, int threads, const std::string& source, const std::string& hwaccel)
    : unit_(track->time_base) {
  const AVCodec* const codec = avcodec_find_decoder(track->codecpar->codec_id);
  context_.reset(avcodec_alloc_context3(codec));
  avcodec_parameters_to_context(context_.get(), track->codecpar);
  context_->pkt_timebase = track->time_base;
  context_->thread_count = hwaccel.empty() ? threads : 1;  // a device has no use for several frames at a time
  if (!hwaccel.empty()) hardware_ = std::make_unique<HardwareDecoder>(context_.get(), codec, hwaccel);
  const int result = avcodec_open2(context_.get(), codec, nullptr);
  if (result < 0) throw MediaError(source + " cannot be decoded: " + ffmpeg_error(result) + ".");
}

int Decoder::decode(const AVPacket* packet, std::vector<Decoded>& frames) {
  const std::size_t before = frames.size();
  int status = avcodec_send_packet(context_.get(), packet);
  while (status >= 0) {
    FramePtr frame(av_frame_alloc(), FreeAv());
    status = avcodec_receive_frame(context_.get(), frame.get());
    if (status < 0) break;
    if (hardware_) frame = hardware_->download(frame);
    frames.push_back({frame, context_->codec_type == AVMEDIA_TYPE_VIDEO, unit_});
  }
  if (hardware_) hardware_->check_taken();
  if (status == AVERROR(EAGAIN) || status == AVERROR_EOF) return 0;
  frames.resize(before);
  return status;
}

Container::Container(const std::string& path, Damage* damage) : path_(path), damage_(damage), packet_(av_packet_alloc()) {
  std::error_code problem;
  if (!std::filesystem::exists(path, problem)) throw MediaError("there is no video at " + path + ".");
  if (!std::filesystem::is_regular_file(path, problem)) throw MediaError(path + " is not a file.");
  AVFormatContext* opened = avformat_alloc_context();
  opened->flags |= AVFMT_FLAG_GENPTS;
  AVDictionary* options = nullptr;
  av_dict_set(&options, "protocol_whitelist", "file", 0);
  int result = avformat_open_input(&opened, ("file:" + path).c_str(), nullptr, &options);
  av_dict_free(&options);
  format_.reset(opened);
  if (result >= 0) result = avformat_find_stream_info(opened, nullptr);
  if (result < 0) {
    throw MediaError(path + " cannot be read as a video: " + ffmpeg_error(result) + ".",
                     "It may be truncated or of a kind that FFmpeg does not know.");
  }
}

Container::Container(const VideoInfo& video, Damage* damage) : Container(video.path, damage) {
  video_ = &video;
  join(video.clock);
}

void Container::join(const Clock& clock) {
  if (has_steps()) joiner_.emplace(clock);
}

bool Container::is_of(const char* format) const {
  return ("," + std::string(format_->iformat->name) + ",").find("," + std::string(format) + ",") != std::string::npos;
}

Decoder& Container::open_decoder(int index, int threads) {
  packets_[index] = 0;
  const bool is_video = video_ != nullptr && index == video_->video.index;
  return decoders_.emplace(index, Decoder(stream(index), threads, path_, is_video ? video_->hwaccel : "")).first->second;
}

std::optional<Decoded> Container::next() {
  while (ready_.empty() && !ended_) read();
  if (ready_.empty()) return std::nullopt;
  Decoded first = std::move(ready_.front());
  ready_.pop_front();
  return first;
}

void Container::read() {
  const int result = av_read_frame(format_.get(), packet_.get());
  if (result < 0) {
    ended_ = true;
    if (result != AVERROR_EOF) {
      if (damage_ == nullptr || !damage_->tolerates_video) {
        throw MediaError(path_ + " cannot be read to its end: " + ffmpeg_error(result) + ".", kRepair);
      }
      damage_->cut_short = true;
    } else {
      for (const auto& [index, decoder] : decoders_) decode(index, nullptr);
    }
    check_whole();
    return;
  }
  const int index = packet_->stream_index;
  if (decoders_.count(index) != 0) {
    ++packets_[index];
    whole_ = (packet_->flags & AV_PKT_FLAG_CORRUPT) == 0;
    if (joiner_) {
      joiner_->join(packet_.get(), fraction(stream(index)->time_base));
    } else if (video_ != nullptr && index == video_->video.index) {
      check_step(packet_.get());
    }
    decode(index, packet_.get());
  }
  av_packet_unref(packet_.get());
}

// The index of MP4 lists every packet that is to be read, edit lists applied; that of others only some.
void Container::check_whole() {
  bool is_short = !whole_;
  for (const auto& [index, count] : packets_) {
    is_short = is_short || (is_of("mp4") && count < avformat_index_get_entries_count(stream(index)));
  }
  if (!is_short) return;
  if (damage_ == nullptr || !damage_->tolerates_video) {
    throw MediaError(path_ + " is truncated: it ends within the data that it states.", kRepair);
  }
  damage_->cut_short = true;
}

void Container::decode(int index, const AVPacket* packet) {
  const bool is_video = stream(index)->codecpar->codec_type == AVMEDIA_TYPE_VIDEO;
  std::vector<Decoded> frames;
  const int status = decoders_.at(index).decode(packet, frames);
  if (!frames.empty()) reached_.insert(is_video);
  ready_.insert(ready_.end(), frames.begin(), frames.end());
  // A capture of a broadcast may begin anywhere: what comes before the first frame that can be decoded is passed over.
  if (status >= 0 || (reached_.count(is_video) == 0 && has_steps())) return;
  if (damage_ == nullptr || (is_video && !damage_->tolerates_video)) {
    throw MediaError((is_video ? path_ : "the sound of " + path_) + " cannot be decoded: " + ffmpeg_error(status) + ".",
                     std::string(kRepair) + " --skip-damaged passes over what is damaged.");
  }
  ++(is_video ? damage_->video : damage_->audio);
}

void Container::check_step(const AVPacket* packet) {
  const std::optional<Fraction> time = packet_time(packet, fraction(stream(packet->stream_index)->time_base));
  if (!time) return;
  const Fraction step = last_time_ ? *time - *last_time_ : Fraction(0);
  if (step < Fraction(0) - kLargestStepBack || (step > kLargestStepAhead && sound_steps(*video_, *last_time_, *time))) {
    throw MediaError("the time stamps of " + path_ + " make a step of " + std::to_string(step.value()) + " s at " +
                     std::to_string((*last_time_ - video_->start).value()) + " s.", kRepair);
  }
  last_time_ = time;
}

void describe_pixels(VideoInfo& video, const AVFrame& first, const AVStream* stream, const AVCodecContext* decoder) {
  video.orientation = orientation_of(first, stream_orientation(stream));
  const bool turned = video.orientation.transposed;
  video.width = turned ? first.height : first.width;
  video.height = turned ? first.width : first.height;
  video.look = {decoder->color_primaries, decoder->color_trc, decoder->colorspace, decoder->color_range,
                is_rgb(first.format), {1, 1}};
  const AVRational aspect = stream->sample_aspect_ratio.num > 0 ? stream->sample_aspect_ratio : decoder->sample_aspect_ratio;
  if (aspect.num > 0 && aspect.den > 0) video.look.pixel_aspect = turned ? AVRational{aspect.den, aspect.num} : aspect;
}

VideoInfo probe(const std::string& path, const TrackNumbers& numbers, Damage* damage) {
  Container container(path, damage);
  VideoInfo video;
  video.path = path;
  const std::optional<Track> track = choose_track(container.format(), AVMEDIA_TYPE_VIDEO, path, numbers.video);
  if (!track) throw MediaError(path + " has no video track that can be decoded.");
  video.video = *track;
  video.audio = choose_track(container.format(), AVMEDIA_TYPE_AUDIO, path, numbers.audio);
  if (container.has_steps()) {
    const Container whole(path);
    std::vector<int> tracks = {video.video.index};
    if (video.audio) tracks.push_back(video.audio->index);
    video.clock = find_clock(whole.format(), tracks);
    container.join(video.clock);
  }
  const AVStream* const stream = container.stream(track->index);
  const Decoder& decoder = container.open_decoder(track->index, 1);
  const std::optional<Decoded> first = container.next();
  if (!first) throw MediaError(path + " has a video track without a single picture that can be decoded.");
  if (!first->has_time()) {
    throw MediaError(path + " has no time stamps.", "Put it into a container: `ffmpeg -i FILE -c copy NEW.mp4`.");
  }
  video.start = first->time();
  describe_pixels(video, *first->frame, stream, decoder.context());
  const AVRational average = stream->avg_frame_rate, fitting = stream->r_frame_rate;
  if (average.num > 0 && average.den > 0) {
    video.mean_rate = fraction(average);
    if (fitting.num > 0 && fitting.den > 0) {
      const Fraction off = *video.mean_rate / fraction(fitting) - 1;
      if (off <= Fraction(1, 100) && Fraction(-1, 100) <= off) video.rate = fraction(fitting);
    }
  }
  find_end(video, container, stream);
  return video;
}

Orientation orientation_of(const AVFrame& frame, const Orientation& otherwise) {
  const AVFrameSideData* const data = av_frame_get_side_data(&frame, AV_FRAME_DATA_DISPLAYMATRIX);
  return data == nullptr || data->size < 36 ? otherwise : parse_matrix(data->data);
}

}  // namespace avsbg_run
