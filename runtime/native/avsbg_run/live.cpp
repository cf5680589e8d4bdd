#include "live.h"

#include <dlfcn.h>

#include <algorithm>
#include <regex>

namespace avsbg_run {
namespace {

// Seconds until a silent network is given up: to connect, and between two packets.
constexpr std::chrono::seconds kTimeout(10);
// Packets that may wait for their masks per second of a clip, and in all: far beyond what a working overlay leaves.
constexpr std::size_t kPackets = 400;
// Packets on their way from a camera and a microphone that are read at the same time.
constexpr std::size_t kMerged = 64;
// The time that a frame waits for its sound, by the frames' time stamps, until silence stands for it.
const Fraction kSoundPatience(1);
// Frames, or pieces of sound, that may come before the first one with a time stamp.
constexpr int kUntimed = 250;
// A greater step of the time stamps means that the source was restarted, seconds.
constexpr std::int64_t kLargestStep = 60;
// Addresses, what each may lead on to, never to a file of this machine, and those that lose nothing if read late.
const char* const kProtocols[] = {"http", "https", "tcp", "udp", "rtp", "rtsp", "rtmp", "srt"};
const char* const kWhitelist = "http,https,tcp,udp,rtp,rtsp,rtmp,srt,crypto,tls,data,httpproxy";
const char* const kPatient[] = {"http", "https", "tcp", "lavfi"};

template <std::size_t N>
bool is_among(const std::string& name, const char* const (&names)[N]) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

// FFmpeg's devices are a library of their own, which links many others: it is opened where one is asked for.
const AVInputFormat* find_device(const std::string& name) {
  const std::string library = "libavdevice.so." + std::to_string(LIBAVFORMAT_VERSION_MAJOR);  // their numbers go together
  void* const opened = dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL);
  void* const function = opened == nullptr ? nullptr : dlsym(opened, "avdevice_register_all");
  if (function == nullptr) {
    throw MediaError("the device " + name + " needs FFmpeg's library " + library + ", which was not found.",
                     "Install Debian's package libavdevice" + std::to_string(LIBAVFORMAT_VERSION_MAJOR) + ".");
  }
  reinterpret_cast<void (*)()>(function)();
  const AVInputFormat* const format = av_find_input_format(name.c_str());
  if (format == nullptr) throw MediaError("this FFmpeg has no device " + name + ".");
  return format;
}

// The decoded frames and sound of packets that wait for their masks.
class PacketFrames : public FrameSource {
 public:
  PacketFrames(const AVStream* track, const VideoInfo& video, Channel<OverlayItem>& packets)
      : video_(video), packets_(packets), decoder_(track, 0, video.path, video.hwaccel) {}

  std::optional<Decoded> next() override {
    while (ready_.empty() && !ended_) {
      const std::optional<OverlayItem> item = packets_.get();
      std::vector<Decoded> frames;
      if (item && item->sound.frame) {
        if (!item->sound.has_time() || item->sound.time() >= video_.start) return item->sound;
      } else {
        decoder_.decode(item ? item->packet.get() : nullptr, frames);  // damage was counted where the samples are made
        untimed_.apply(frames);
        ended_ = !item;
      }
      ready_.insert(ready_.end(), frames.begin(), frames.end());
    }
    if (ready_.empty()) return std::nullopt;
    Decoded first = std::move(ready_.front());
    ready_.pop_front();
    return first;
  }

 private:
  const VideoInfo& video_;
  Channel<OverlayItem>& packets_;
  Decoder decoder_;
  UntimedFilter untimed_;
  std::deque<Decoded> ready_;
  bool ended_ = false;
};

// Puts the samples of a live source together from its decoded frames and sound.
class SampleAssembler {
 public:
  SampleAssembler(const VideoInfo& video, const avsbg::Model& model, bool silent, const Fraction& rate)
      : video_(video), model_(model), rate_(model.info().sample_rate),
        places_(rate, model.info().frames, model.info().frame_offset, std::nullopt),
        windows_([this](std::size_t count) { return read(count); }, rate_) {
    if (video.audio && model.info().uses_audio && !silent) aligner_.emplace(video.path, video.start, rate_);
  }

  // The time at which the place begins that is being filled, seconds from the first frame.
  Fraction begin() { return places_[number_].begin; }

  void add_frame(const Decoded& frame, std::vector<Sample>& samples) {
    if (!frame.has_time()) throw MediaError(video_.path + " has no time stamps.");
    const Fraction time = frame.time() - video_.start, step = time - time_;
    if (last_ && !(Fraction(-1) < step && step < Fraction(kLargestStep))) {
      throw MediaError("the time stamps of " + video_.path + " step from " + std::to_string(time_.value()) + " to " +
                       std::to_string(time.value()) + " s.", "It was probably restarted; restart this command as well.");
    }
    while (last_ && time > places_[number_].deadline) choose(places_[number_], Fraction(1));
    last_ = frame;
    time_ = time;
    complete(time, samples);
  }

  void add_sound(const Decoded& sound, std::vector<Sample>& samples) {
    if (!aligner_) return;
    aligner_->push(sound);
    if (aligner_->samples.size() > static_cast<std::size_t>(kLargestStep * rate_)) {
      throw MediaError(video_.path + " has sent sound, but no picture for " + std::to_string(kLargestStep) + " s.");
    }
    complete(time_, samples);
  }

  // Gives what is left: as of a file, a last second counts if half of it is there.
  void finish(std::optional<double> duration, std::vector<Sample>& samples) {
    if (last_) {
      Fraction end = time_ + frame_length(*last_->frame, last_->unit, video_.mean_rate);
      if (duration) end = std::min(end, Fraction::of(*duration));
      for (const auto& [place, length] : last_places(places_, number_, end, 1)) {
        choose(place, std::max(Fraction(1, 100), length));
      }
    }
    while (!waiting_.empty()) samples.push_back(take());
  }

  std::int64_t late_sound = 0;  // seconds

 private:
  struct Waiting {
    Sample sample;
    Fraction length;
  };

  void choose(const Place& place, const Fraction& length) {
    auto picture = std::make_shared<Picture>(Picture{video_.width, video_.height, displayed(*last_->frame, video_)});
    waiting_.push_back({{number_++, place, time_, place.phase == 0 ? picture : resize_picture(model_, *picture), {}}, length});
  }

  void complete(const Fraction& now, std::vector<Sample>& samples) {
    while (!waiting_.empty()) {
      const Place& place = waiting_.front().sample.place;
      const auto [begin, count] = place_samples(place, Fraction(1), rate_);
      const bool has_sound = !aligner_ || heard_ + static_cast<std::int64_t>(aligner_->samples.size()) >= begin + count;
      if (!has_sound && now < place.begin + Fraction(1) + kSoundPatience) return;
      samples.push_back(take());
    }
  }

  Sample take() {
    Waiting first = std::move(waiting_.front());
    waiting_.pop_front();
    is_late_ = false;
    first.sample.sound = windows_.read(first.sample.place, first.length);
    late_sound += is_late_;
    return std::move(first.sample);
  }

  // The next samples; silence for those that have not come, or of a source without sound.
  std::vector<float> read(std::size_t count) {
    heard_ += static_cast<std::int64_t>(count);
    if (!aligner_) return std::vector<float>(count);
    if (const std::size_t have = aligner_->samples.size(); have < count) {
      is_late_ = true;
      // Sound that comes too late is dropped, so that what follows stays with its frame.
      aligner_->skip(static_cast<std::int64_t>(count - have));
    }
    return take_samples(aligner_->samples, count);
  }

  const VideoInfo& video_;
  const avsbg::Model& model_;
  const int rate_;
  Places places_;
  std::optional<Aligner> aligner_;
  SoundWindows windows_;
  std::int64_t number_ = 0;  // of the place that is being filled
  std::int64_t heard_ = 0;   // samples that places have had
  bool is_late_ = false;     // whether sound of the place that is taken did not come in time
  std::deque<Waiting> waiting_;
  std::optional<Decoded> last_;
  Fraction time_;  // when `last_` begins
};

}  // namespace

void UntimedFilter::apply(std::vector<Decoded>& frames) {
  auto timed = frames.begin();
  for (; timed != frames.end() && !timed->has_time() && left_out_ < kUntimed; ++timed) ++left_out_;
  frames.erase(frames.begin(), timed);
  if (!frames.empty()) left_out_ = kUntimed;
}

std::optional<LiveSource> parse_live(const std::string& text) {
  std::smatch match;
  if (std::regex_search(text, match, std::regex("^([a-zA-Z][a-zA-Z0-9+.]*)://"))) {
    std::string scheme = match[1];
    std::transform(scheme.begin(), scheme.end(), scheme.begin(), [](unsigned char one) { return std::tolower(one); });
    if (!is_among(scheme, kProtocols)) {
      std::string known;
      for (const char* const one : kProtocols) known += (known.empty() ? "" : ", ") + std::string(one) + "://";
      throw MediaError(text + " is no address that can be read.", "Addresses begin with " + known + ".");
    }
    return LiveSource{text, text, "", {}, is_among(scheme, kPatient)};
  }
  if (std::regex_match(text, match, std::regex("(v4l2|alsa|lavfi):([^?]+)(\\?(.*))?"))) {
    LiveSource source{text, match[2], match[1], {}, is_among(std::string(match[1]), kPatient)};
    const std::string query = match[4];
    for (std::size_t start = 0; start < query.size();) {
      const std::size_t end = std::min(query.find('&', start), query.size());
      const std::string pair = query.substr(start, end - start);
      const std::size_t equals = pair.find('=');
      if (!pair.empty() && (equals == std::string::npos || equals == 0)) {
        throw MediaError("the options of " + text + " are not NAME=VALUE, joined by &.",
                         "For instance v4l2:/dev/video0?video_size=1280x720&framerate=30.");
      }
      if (!pair.empty()) source.options[pair.substr(0, equals)] = pair.substr(equals + 1);
      start = end + 1;
    }
    return source;
  }
  if (std::regex_match(text, std::regex("/dev/video[0-9]+"))) return LiveSource{text, text, "v4l2", {}, false};
  return std::nullopt;
}

LiveInput::LiveInput(const LiveSource& given, const std::function<bool()>& stop)
    : source(given), stop_(stop), deadline_(SteadyClock::now() + kTimeout) {
  const AVInputFormat* const device = source.device.empty() ? nullptr : find_device(source.device);
  AVFormatContext* opened = avformat_alloc_context();
  opened->interrupt_callback = {is_over, this};
  opened->flags |= AVFMT_FLAG_GENPTS;
  AVDictionary* options = nullptr;
  for (const auto& [name, value] : source.options) av_dict_set(&options, name.c_str(), value.c_str(), 0);
  if (source.device.empty()) av_dict_set(&options, "protocol_whitelist", kWhitelist, 0);
  // The clock that ALSA's time stamps are of.
  if (source.device == "v4l2") av_dict_set(&options, "timestamps", "abs", AV_DICT_DONT_OVERWRITE);
  int result = avformat_open_input(&opened, source.address.c_str(), const_cast<AVInputFormat*>(device), &options);
  av_dict_free(&options);
  format_.reset(opened);
  if (result >= 0) result = avformat_find_stream_info(opened, nullptr);
  if (result < 0) {
    const bool is_late = result == AVERROR_EXIT && !stop_();
    throw MediaError(source.name + " cannot be opened: " + (is_late ? "nothing came for 10 s" : ffmpeg_error(result)) + ".",
                     source.device.empty() ? "Check the address, and that the sender is running."
                                           : "Check that the device is there, that you may read it, and that nobody else does.");
  }
}

int LiveInput::is_over(void* self) {
  const auto& input = *static_cast<LiveInput*>(self);
  return input.stop_() || SteadyClock::now() > input.deadline_.load();
}

std::shared_ptr<AVPacket> LiveInput::read() {
  std::shared_ptr<AVPacket> packet(av_packet_alloc(), FreeAv());
  deadline_ = SteadyClock::now() + kTimeout;
  int result = 0;
  while ((result = av_read_frame(format_.get(), packet.get())) == AVERROR(EAGAIN) && is_over(this) == 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // a device has nothing yet
  }
  if (result >= 0) return packet;
  if (result == AVERROR_EOF || stop_()) return nullptr;
  const bool is_late = result == AVERROR_EXIT || result == AVERROR(EAGAIN);
  throw MediaError(source.name + " stopped: " + (is_late ? "nothing came for 10 s" : ffmpeg_error(result)) + ".",
                   "What came before was kept.");
}

LiveReader::LiveReader(const LiveSource& source, const std::optional<LiveSource>& microphone, const TrackNumbers& numbers,
                       const std::string& hwaccel, std::optional<double> duration, std::function<bool()> stop)
    : stop_([this, stop = std::move(stop)] { return closed_ || stop(); }), duration_(duration), merged_(kMerged) {
  inputs_.push_back(std::make_unique<LiveInput>(source, stop_));
  if (microphone) inputs_.push_back(std::make_unique<LiveInput>(*microphone, stop_));
  video.path = source.name;
  video.hwaccel = hwaccel;
  AVFormatContext* const format = inputs_[0]->format();
  const std::optional<Track> track = choose_track(format, AVMEDIA_TYPE_VIDEO, source.name, numbers.video);
  if (!track) throw MediaError(source.name + " has no video track that can be decoded.");
  video.video = *track;
  // The camera's own microphone is not used if another one was named.
  video.audio = microphone ? choose_track(inputs_[1]->format(), AVMEDIA_TYPE_AUDIO, microphone->name, std::nullopt)
                           : choose_track(format, AVMEDIA_TYPE_AUDIO, source.name, numbers.audio);
  if (microphone && !video.audio) {
    throw MediaError(microphone->name + " gives no sound.", "A microphone is named like alsa:default.");
  }
  frame_decoder_.emplace(format->streams[video.video.index], 0, source.name, hwaccel);
  if (video.audio) sound_decoder_.emplace(inputs_.back()->format()->streams[video.audio->index], 1, inputs_.back()->source.name);
  heads_.resize(inputs_.size());
  const bool have_no_pace = std::all_of(inputs_.begin(), inputs_.end(), [](const auto& one) { return one->source.waits; });
  if (inputs_.size() == 2 && !have_no_pace) {
    for (std::size_t input = 0; input < inputs_.size(); ++input) {
      ++pumping_;
      pumps_.push_back(std::make_unique<Worker>([this, input] { pump(input); }, [this] { closed_ = true; merged_.close(); }));
    }
  }
  find_first_frame();
}

LiveReader::~LiveReader() {
  closed_ = true;
  merged_.close();
}

void LiveReader::pump(std::size_t input) {
  try {
    while (std::optional<LivePacket> packet = read_from(input)) {
      if (!merged_.put(std::move(*packet))) return;
    }
  } catch (const std::exception& error) {
    const std::lock_guard<std::mutex> lock(failure_mutex_);
    if (failure.empty()) failure = error.what();
    merged_.close();
  }
  if (--pumping_ == 0) merged_.close();
}

// The next packet of the track that is read of an input.
std::optional<LivePacket> LiveReader::read_from(std::size_t input) {
  while (std::shared_ptr<AVPacket> packet = inputs_[input]->read()) {
    const bool is_video = input == 0 && packet->stream_index == video.video.index;
    const bool is_sound = video.audio && input + 1 == inputs_.size() && packet->stream_index == video.audio->index;
    if ((is_video || is_sound) && packet->size > 0) return LivePacket{packet, is_video};
  }
  return std::nullopt;
}

std::optional<LivePacket> LiveReader::next_packet() {
  if (!held_.empty()) {
    LivePacket packet = std::move(held_.front());
    held_.pop_front();
    return packet;
  }
  if (inputs_.size() == 1) return read_from(0);
  if (!pumps_.empty()) return merged_.get();
  // Neither has a pace of its own, so what came first is a matter of the time stamps.
  std::optional<std::size_t> first;
  std::optional<Fraction> earliest;
  for (std::size_t input = 0; input < inputs_.size(); ++input) {
    std::optional<LivePacket>& head = heads_[input];
    if (!head) head = read_from(input);
    if (!head) continue;
    const AVPacket* const packet = head->packet.get();
    const Fraction unit = fraction(inputs_[input]->format()->streams[packet->stream_index]->time_base);
    const Fraction time = Fraction(packet->pts == AV_NOPTS_VALUE ? 0 : packet->pts) * unit;
    if (!earliest || time < *earliest) {
      earliest = time;
      first = input;
    }
  }
  if (!first) return std::nullopt;
  std::optional<LivePacket> taken = std::move(heads_[*first]);
  heads_[*first].reset();
  return taken;
}

std::vector<Decoded> LiveReader::decode(bool is_video, const AVPacket* packet) {
  std::vector<Decoded> frames;
  Decoder& decoder = is_video ? *frame_decoder_ : *sound_decoder_;
  if (decoder.decode(packet, frames) < 0) ++damaged;  // broken, or its reference was sent before we were there
  (is_video ? untimed_frames_ : untimed_sound_).apply(frames);
  return frames;
}

void LiveReader::find_first_frame() {
  std::deque<LivePacket> read;
  std::vector<Decoded> frames;
  while (frames.empty()) {
    std::optional<LivePacket> packet = next_packet();
    if (!packet) {  // as many frames as there are processors may still be in the decoder
      frames = decode(true, nullptr);
      break;
    }
    if (packet->is_video) frames = decode(true, packet->packet.get());
    read.push_back(std::move(*packet));
  }
  if (frames.empty()) {
    throw MediaError(failure.empty() ? video.path + " ended before its first picture." : failure);
  }
  if (!frames[0].has_time()) throw MediaError(video.path + " has no time stamps.");
  const AVStream* const stream = inputs_[0]->format()->streams[video.video.index];
  video.start = frames[0].time();
  describe_pixels(video, *frames[0].frame, stream, frame_decoder_->context());
  if (stream->avg_frame_rate.num > 0 && stream->avg_frame_rate.den > 0) video.mean_rate = fraction(stream->avg_frame_rate);
  // Decoded once more, when the packets are read again.
  frame_decoder_->flush();
  untimed_frames_ = {};
  damaged = 0;
  held_ = std::move(read);
}

void LiveReader::read(const avsbg::Model& model, bool silent, const Fraction& rate, Channel<OverlayItem>* packets,
                      const std::function<bool(Sample)>& take) {
  SampleAssembler assembler(video, model, silent, rate);
  std::vector<Sample> samples;
  const auto hand_over = [&] {
    bool is_wanted = true;
    for (Sample& one : samples) is_wanted = is_wanted && take(std::move(one));
    samples.clear();
    return is_wanted;
  };
  const auto add = [&](bool is_video, const std::vector<Decoded>& decoded) {
    for (const Decoded& one : decoded) is_video ? assembler.add_frame(one, samples) : assembler.add_sound(one, samples);
  };
  try {
    bool is_wanted = true;
    while (is_wanted && !stop_() && !(duration_ && assembler.begin() >= Fraction::of(*duration_))) {
      const std::optional<LivePacket> packet = next_packet();
      if (!packet) break;
      if (packets != nullptr && packets->size() >= kPackets * static_cast<std::size_t>(model.info().frames + 10)) {
        throw MediaError(std::to_string(packets->size()) + " packets of " + video.path +
                         " wait for the overlay, which is too slow.", "Use --no-overlay.");
      }
      const std::vector<Decoded> decoded = decode(packet->is_video, packet->packet.get());
      if (packets != nullptr && packet->is_video) packets->put({packet->packet, {}});
      if (packets != nullptr && !packet->is_video) {
        for (const Decoded& sound : decoded) packets->put({nullptr, sound});
      }
      add(packet->is_video, decoded);
      is_wanted = hand_over();
    }
    add(true, decode(true, nullptr));
    if (sound_decoder_) add(false, decode(false, nullptr));
  } catch (const MediaError& error) {
    const std::lock_guard<std::mutex> lock(failure_mutex_);
    if (failure.empty()) failure = error.what();
  }
  if (packets != nullptr) packets->close();
  assembler.finish(duration_, samples);
  hand_over();
  late_sound = assembler.late_sound;
}

std::unique_ptr<FrameSource> LiveReader::frames(Channel<OverlayItem>& packets) const {
  return std::make_unique<PacketFrames>(inputs_[0]->format()->streams[video.video.index], video, packets);
}

}  // namespace avsbg_run
