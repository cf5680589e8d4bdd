#include <algorithm>
#include <cstring>
#include <filesystem>
#include <set>

#include "media.h"

namespace avsbg_run {
namespace {

const char* const kRepair = "Fetch or record the file again; `ffmpeg -i FILE NEW.mp4` keeps what is left of it.";
const std::set<std::string> kStillCodecs = {"mjpeg", "png", "apng", "bmp", "gif", "webp", "tiff", "jpeg2000", "jpegxl"};

Fraction fraction(AVRational value) { return {value.num, value.den}; }

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

bool is_of(const AVFormatContext* format, const char* name) {
  return ("," + std::string(format->iformat->name) + ",").find("," + std::string(name) + ",") != std::string::npos;
}

void find_end(VideoInfo& video, const AVFormatContext* format, const AVStream* stream) {
  const Fraction unit = fraction(stream->time_base);
  const Fraction begin = Fraction(stream->start_time == AV_NOPTS_VALUE ? 0 : stream->start_time) * unit;
  if (stream->duration != AV_NOPTS_VALUE && (is_of(format, "mp4") || is_of(format, "avi") || is_of(format, "mxf"))) {
    Fraction stated = Fraction(stream->duration) * unit;
    if (is_of(format, "avi") && stream->avg_frame_rate.num > 0) {
      const Fraction frames = Fraction(stream->nb_frames) / fraction(stream->avg_frame_rate);
      if (frames > stated) stated = frames;
    }
    video.stated_end = begin + stated;
  } else if (const auto tagged = tagged_duration(stream)) {
    video.stated_end = tagged;
  } else if (format->duration != AV_NOPTS_VALUE) {
    const std::int64_t first = format->start_time == AV_NOPTS_VALUE ? 0 : format->start_time;
    video.stated_end = Fraction(format->duration, AV_TIME_BASE) + Fraction(first, AV_TIME_BASE);
    video.end_is_of_file = true;
  }
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

}  // namespace

std::string ffmpeg_error(int code) {
  char text[AV_ERROR_MAX_STRING_SIZE];
  return av_strerror(code, text, sizeof text) == 0 ? text : "error " + std::to_string(code);
}

Container::Container(const std::string& path) : path_(path), packet_(av_packet_alloc()) {
  std::error_code problem;
  if (!std::filesystem::exists(path, problem)) throw MediaError("there is no video at " + path + ".");
  if (!std::filesystem::is_regular_file(path, problem)) throw MediaError(path + " is not a file.");
  AVFormatContext* opened = nullptr;
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
  if ((opened->iformat->flags & AVFMT_TS_DISCONT) != 0) {
    throw MediaError(path + " is of the format " + opened->iformat->name + ", whose clock may make steps.",
                     "avsbg-run does not join them: use `avsbg run`, or put it into MP4 (`ffmpeg -i FILE -c copy NEW.mp4`).");
  }
  decoders_.resize(opened->nb_streams);
  packets_.resize(opened->nb_streams);
}

void Container::open_decoder(int index, int threads) {
  const AVStream* const track = stream(index);
  const AVCodec* const codec = avcodec_find_decoder(track->codecpar->codec_id);
  Owned<AVCodecContext> decoder(avcodec_alloc_context3(codec));
  avcodec_parameters_to_context(decoder.get(), track->codecpar);
  decoder->pkt_timebase = track->time_base;
  decoder->thread_count = threads;
  const int result = avcodec_open2(decoder.get(), codec, nullptr);
  if (result < 0) throw MediaError(path_ + " cannot be decoded: " + ffmpeg_error(result) + ".");
  decoders_[static_cast<std::size_t>(index)] = std::move(decoder);
}

bool Container::receive(std::size_t index) {
  Owned<AVFrame> frame(av_frame_alloc());
  const int result = avcodec_receive_frame(decoders_[index].get(), frame.get());
  if (result == AVERROR(EAGAIN) || result == AVERROR_EOF) return false;
  if (result < 0) {
    throw MediaError(path_ + " cannot be decoded: " + ffmpeg_error(result) + ".", kRepair);
  }
  ready_.emplace_back(static_cast<int>(index), FramePtr(frame.release(), FreeAv()));
  return true;
}

FramePtr Container::next(int& index) {
  while (ready_.empty() && !ended_) {
    const int result = av_read_frame(format_.get(), packet_.get());
    if (result == AVERROR_EOF) {
      ended_ = true;
      for (std::size_t i = 0; i < decoders_.size(); ++i) {
        if (!decoders_[i]) continue;
        avcodec_send_packet(decoders_[i].get(), nullptr);
        while (receive(i)) {
        }
        const auto listed = is_of(format_.get(), "mp4") ? avformat_index_get_entries_count(stream(static_cast<int>(i))) : 0;
        if (!whole_ || packets_[i] < listed) {
          throw MediaError(path_ + " is truncated: it ends within the data that it states.", kRepair);
        }
      }
      break;
    }
    if (result < 0) throw MediaError(path_ + " cannot be read to its end: " + ffmpeg_error(result) + ".", kRepair);
    const auto track = static_cast<std::size_t>(packet_->stream_index);
    if (track < decoders_.size() && decoders_[track]) {
      ++packets_[track];
      whole_ = (packet_->flags & AV_PKT_FLAG_CORRUPT) == 0;
      int sent = 0;
      do {
        sent = avcodec_send_packet(decoders_[track].get(), packet_.get());
        while (receive(track)) {
        }
      } while (sent == AVERROR(EAGAIN));
      if (sent < 0) throw MediaError(path_ + " cannot be decoded: " + ffmpeg_error(sent) + ".", kRepair);
    }
    av_packet_unref(packet_.get());
  }
  if (ready_.empty()) return nullptr;
  auto [track, frame] = ready_.front();
  ready_.pop_front();
  index = track;
  return frame;
}

VideoInfo probe(const std::string& path, std::optional<int> video_track, std::optional<int> audio_track) {
  Container container(path);
  VideoInfo video;
  video.path = path;
  const std::optional<Track> track = choose_track(container.format(), AVMEDIA_TYPE_VIDEO, path, video_track);
  if (!track) throw MediaError(path + " has no video track that can be decoded.");
  video.video = *track;
  video.audio = choose_track(container.format(), AVMEDIA_TYPE_AUDIO, path, audio_track);
  const AVStream* const stream = container.stream(track->index);
  container.open_decoder(track->index, 1);
  int index = -1;
  const FramePtr first = container.next(index);
  if (!first) throw MediaError(path + " has a video track without a single picture that can be decoded.");
  if (first->pts == AV_NOPTS_VALUE) {
    throw MediaError(path + " has no time stamps.", "Put it into a container: `ffmpeg -i FILE -c copy NEW.mp4`.");
  }
  video.start = Fraction(first->pts) * fraction(stream->time_base);
  video.orientation = orientation_of(*first, stream_orientation(stream));
  video.width = video.orientation.transposed ? first->height : first->width;
  video.height = video.orientation.transposed ? first->width : first->height;
  const AVRational average = stream->avg_frame_rate, fitting = stream->r_frame_rate;
  if (average.num > 0 && average.den > 0 && fitting.num > 0 && fitting.den > 0) {
    const Fraction off = fraction(average) / fraction(fitting) - 1;
    if (off <= Fraction(1, 100) && Fraction(-1, 100) <= off) video.rate = fraction(fitting);
  }
  find_end(video, container.format(), stream);
  if (video.stated_end) {
    video.duration = *video.stated_end - video.start;
    if (*video.duration < Fraction(0)) video.duration = Fraction(0);
  }
  return video;
}

Orientation orientation_of(const AVFrame& frame, const Orientation& otherwise) {
  const AVFrameSideData* const data = av_frame_get_side_data(&frame, AV_FRAME_DATA_DISPLAYMATRIX);
  return data == nullptr || data->size < 36 ? otherwise : parse_matrix(data->data);
}

}  // namespace avsbg_run
