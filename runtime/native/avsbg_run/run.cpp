#include "run.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <regex>
#include <set>

#include "channel.h"
#include "libavsbg/bundle/sha256.h"
#include "overlay.h"

namespace avsbg_run {
namespace fs = std::filesystem;
namespace {

using Clock = std::chrono::steady_clock;
// Samples that a step may be ahead of the next.
constexpr std::size_t kAhead = 4;
const std::set<std::string> kSuffixes = {".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg",
                                         ".mpg", ".mts", ".ogv", ".ts",   ".vob", ".webm", ".wmv"};

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

// A second of a video: its frame and its sound.
struct Sample {
  std::int64_t number;
  Fraction time;
  std::vector<std::uint8_t> pixels;
  std::vector<float> sound;
};

struct Segmented {
  std::int64_t number;
  Fraction time;
  avsbg::Mask mask;
};

class Reader {
 public:
  Reader(const VideoInfo& video, const avsbg_model_info& info, bool no_sound)
      : video_(video), rate_(info.sample_rate), frames_(video, info.frames, info.frame_offset) {
    if (!info.uses_audio || no_sound) return;
    if (!video.audio) {
      throw MediaError(video.path + " has no audio track that can be decoded, and the network uses audio.",
                       "Give a video with sound; --no-sound gives the network silence instead.");
    }
    sound_.emplace(video, rate_);
  }

  std::optional<Sample> next() {
    const std::optional<ChosenFrame> chosen = frames_.next();
    if (!chosen) return std::nullopt;
    const auto count = static_cast<std::size_t>((chosen->length * Fraction(rate_)).round());
    return Sample{chosen->second, chosen->time, displayed(*chosen->frame, video_),
                  sound_ ? sound_->read(count) : std::vector<float>(count)};
  }

 private:
  VideoInfo video_;
  int rate_;
  FrameChooser frames_;
  std::optional<SoundReader> sound_;
};

// The network on the samples of one video, clip by clip or as a stream.
class Segmenter {
 public:
  Segmenter(const avsbg::Model& model, const VideoInfo& video, bool as_stream) : model_(model), video_(video) {
    if (!as_stream) return;
    avsbg_stream_options options = avsbg::init<avsbg_stream_options>();
    options.published_spacing = 1;
    stream_.emplace(model, options);
  }

  std::vector<Segmented> push(Sample sample) {
    times_.emplace_back(sample.number, sample.time);
    if (stream_) {
      const double begin = static_cast<double>(sample.number);
      if (model_.info().takes_waveform) stream_->push_sound(sample.sound.data(), sample.sound.size(), begin);
      stream_->push(frame_of(sample), begin + model_.info().frame_offset);
      return paired(stream_->poll());
    }
    waiting_.push_back(std::move(sample));
    return waiting_.size() == static_cast<std::size_t>(model_.info().frames) ? run_clip() : std::vector<Segmented>();
  }

  std::vector<Segmented> finish() {
    if (!stream_) return waiting_.empty() ? std::vector<Segmented>() : run_clip();
    stream_->finish();
    return paired(stream_->poll());
  }

 private:
  avsbg_frame frame_of(const Sample& sample) const {
    return avsbg::frame(sample.pixels.data(), video_.width, video_.height);
  }

  std::vector<Segmented> run_clip() {
    std::vector<avsbg_frame> frames;
    std::vector<float> sound;
    for (const Sample& sample : waiting_) {
      frames.push_back(frame_of(sample));
      sound.insert(sound.end(), sample.sound.begin(), sample.sound.end());
    }
    std::vector<Segmented> results = paired(model_.run_clip(frames, sound));
    waiting_.clear();
    return results;
  }

  std::vector<Segmented> paired(std::vector<avsbg::Mask> masks) {
    std::vector<Segmented> results;
    for (avsbg::Mask& mask : masks) {
      results.push_back({times_.front().first, times_.front().second, std::move(mask)});
      times_.pop_front();
    }
    return results;
  }

  const avsbg::Model& model_;
  const VideoInfo& video_;
  std::optional<avsbg::Stream> stream_;
  std::vector<Sample> waiting_;
  std::deque<std::pair<std::int64_t, Fraction>> times_;  // of samples that wait for their masks
};

struct Record {
  std::int64_t seconds = 0, sounding = 0;
  double area = 0;
};

double rounded(double value, double digits) { return std::nearbyint(value * digits) / digits; }

class Writer {
 public:
  Writer(const std::string& directory, const VideoInfo& video, const avsbg::Model& model, const Options& options)
      : directory_(directory), video_(video), options_(options), lines_(directory + "/frames.jsonl") {
    for (int number = 0; number < model.info().labels; ++number) labels_.push_back(avsbg_model_label(model.get(), number));
    if (options.masks == "png") fs::create_directory(directory + "/masks");
    if (options.probabilities) fs::create_directory(directory + "/probabilities");
    if (options.rle) coco_.emplace(directory, video.path, labels_);
  }

  // Returns the mask in the video's size.
  std::vector<std::uint8_t> write(const Segmented& one) {
    const std::vector<std::uint8_t> mask = one.mask.decide(video_.width, video_.height, options_.threshold);
    const avsbg_mask_view& view = one.mask.view();
    const std::size_t pixels = static_cast<std::size_t>(view.height) * static_cast<std::size_t>(view.width);
    char name[32];
    std::snprintf(name, sizeof name, "/%05lld.png", static_cast<long long>(one.number));
    if (options_.masks == "png") {
      write_png(directory_ + "/masks" + name, mask, video_.width, video_.height, !labels_.empty());
    }
    const double time = rounded(one.time.value(), 1e6);
    if (coco_) {
      std::vector<std::uint8_t> numbers = mask;
      if (labels_.empty()) std::replace(numbers.begin(), numbers.end(), std::uint8_t{255}, std::uint8_t{1});
      coco_->add(one.number, time, numbers, video_.width, video_.height);
    }
    if (options_.probabilities) {
      std::vector<std::uint8_t> grey(pixels);
      for (std::size_t i = 0; i < pixels; ++i) grey[i] = static_cast<std::uint8_t>(std::nearbyint(view.probability[i] * 255.0F));
      write_png(directory_ + "/probabilities" + name, grey, view.width, view.height, false);
    }
    std::vector<std::int64_t> counts(256);
    for (const std::uint8_t each : mask) ++counts[each];
    const auto size = static_cast<double>(mask.size());
    const double area = static_cast<double>(static_cast<std::int64_t>(mask.size()) - counts[0]) / size;
    const float highest = *std::max_element(view.probability, view.probability + pixels);
    Json line = {{"second", one.number}, {"time", time}, {"mask_area", area}, {"highest_probability", static_cast<double>(highest)}};
    if (!labels_.empty()) {
      line["class_areas"] = Json::object();
      for (std::size_t i = 0; i < labels_.size(); ++i) {
        if (counts[i] > 0) line["class_areas"][labels_[i]] = static_cast<double>(counts[i]) / size;
      }
    }
    lines_ << line.dump() << '\n';
    ++record.seconds;
    record.sounding += area > 0;
    record.area += area;
    return mask;
  }

  void finish() {
    if (coco_) coco_->finish();
    lines_.close();
    if (!lines_) throw MediaError("the output " + directory_ + " cannot be written.", "Make room.");
  }

  Record record;

 private:
  std::string directory_;
  VideoInfo video_;
  Options options_;
  std::vector<std::string> labels_;
  std::ofstream lines_;
  std::optional<CocoWriter> coco_;
};

Json track_json(const Track& track) {
  return {{"index", track.index}, {"number", track.number}, {"codec", track.codec},
          {"language", track.language.empty() ? Json() : Json(track.language)}};
}

Json settings(const Options& options) {
  Json chosen = {{"threshold", options.threshold}, {"silent", options.no_sound},          {"masks", options.masks},
                 {"rle", options.rle},             {"probabilities", options.probabilities}, {"overlay", options.overlay},
                 {"target", options.backend},      {"stream", options.mode == "stream"}};
  if (options.video_track) chosen["video_track"] = *options.video_track;
  if (options.audio_track) chosen["audio_track"] = *options.audio_track;
  return chosen;
}

Json backend_json(const avsbg::Model& model, const Options& options) {
  Json described = Json::parse(avsbg_model_describe(model.get()));
  if (options.mode == "stream") {
    return {{"mode", "stream"}, {"spacing", "published"}, {"encode", described["encode"]}, {"decode", described["decode"]}};
  }
  Json backend = described["clip"];
  backend["mode"] = "clip";
  return backend;
}

// Addresses and devices, as Python's `parse_source` knows them.
bool is_live(const std::string& source) {
  static const std::regex address("[a-zA-Z][a-zA-Z0-9+.]*://.*|(v4l2|alsa|lavfi):.+|/dev/video[0-9]+");
  return std::regex_match(source, address);
}

}  // namespace

std::vector<Item> find_videos(const std::vector<std::string>& sources, const std::string& output) {
  for (const std::string& source : sources) {
    if (is_live(source)) {
      throw MediaError("avsbg-run reads files and folders, and " + source + " is a live source.",
                       "`avsbg run` reads it; a program pushes its own frames and sound into a stream of avsbg.h.");
    }
  }
  if (sources.size() == 1 && !fs::is_directory(sources[0])) return {{sources[0], output}};
  std::vector<Item> items;
  std::set<std::string> outputs;
  const auto add = [&](const fs::path& video, const fs::path& name) {
    const std::string target = (fs::path(output) / name).string();
    if (!outputs.insert(target).second) {
      throw MediaError("two videos would both be written to " + target + ".", "Run them with different -o directories.");
    }
    items.push_back({video.string(), target});
  };
  const auto is_output = [](const fs::path& folder) {
    return fs::exists(folder / "summary.json") && fs::exists(folder / "frames.jsonl");
  };
  for (const std::string& source : sources) {
    if (!fs::is_directory(source)) {
      add(source, fs::path(source).filename());
      continue;
    }
    std::vector<fs::path> found;
    for (auto entry = fs::recursive_directory_iterator(source); entry != fs::recursive_directory_iterator(); ++entry) {
      const fs::path& path = entry->path();
      std::error_code differs;
      if (entry->is_directory() && (path.filename().string()[0] == '.' || is_output(path) ||
                                    fs::equivalent(path, output, differs))) {
        entry.disable_recursion_pending();
        continue;
      }
      std::string suffix = path.extension().string();
      std::transform(suffix.begin(), suffix.end(), suffix.begin(), [](unsigned char one) { return std::tolower(one); });
      if (entry->is_regular_file() && kSuffixes.count(suffix)) found.push_back(path);
    }
    if (found.empty()) throw MediaError("the folder " + source + " holds no video.");
    std::sort(found.begin(), found.end());
    for (const fs::path& path : found) add(path, fs::relative(path, source));
  }
  return items;
}

Json segment_video(const avsbg::Model& model, const Options& options, const Item& item, bool& finished_before) {
  if (!fs::is_regular_file(item.video)) throw MediaError("there is no video at " + item.video + ".");
  const std::string content = sha256_of_file(item.video), manifest = avsbg_model_manifest_sha256(model.get());
  const std::string key = avsbg::sha256_of(
      dump_sorted({{"video", content}, {"bundle", manifest}, {"options", settings(options)}}));
  finished_before = false;
  if (fs::exists(item.output + "/summary.json") && !options.overwrite) {
    std::ifstream file(item.output + "/summary.json");
    const Json earlier = Json::parse(file, nullptr, /*allow_exceptions=*/false);
    if (earlier.is_object() && earlier.contains("video") && earlier["video"].is_object() &&
        earlier["video"].value("key", Json()) == key) {
      finished_before = true;
      return earlier;
    }
    throw MediaError(item.output + " exists already and is of another video, another bundle or other options.",
                     "Choose another directory, or replace it with --overwrite.");
  }
  const VideoInfo video = probe(item.video, options.video_track, options.audio_track);
  Reader reader(video, model.info(), options.no_sound);
  OutputDirectory output(item.output, options.overwrite);
  Writer writer(output.path(), video, model, options);
  Segmenter segmenter(model, video, options.mode == "stream");
  const Clock::time_point start = Clock::now();
  double decoding = 0, inference = 0, writing = 0, overlaying = 0;
  Channel<Sample> read(kAhead);
  Channel<Segmented> segmented(kAhead);
  Channel<SecondMask> masks(kAhead);
  {
    const auto run = [](auto& into, const auto& work) {
      try {
        work();
        into.close();
      } catch (...) {
        into.close(std::current_exception());
      }
    };
    Worker reading([&] {
      run(read, [&] {
        while (true) {
          const Clock::time_point begin = Clock::now();
          std::optional<Sample> sample = reader.next();
          decoding += seconds_since(begin);
          if (!sample || !read.put(std::move(*sample))) return;
        }
      });
    }, [&] { read.close(); });
    std::optional<Worker> overlay;
    if (options.overlay) {
      overlay.emplace([&] {
        const Clock::time_point begin = Clock::now();
        run(masks, [&] { write_overlay(video, output.path() + "/overlay.mp4", masks, model.info().labels > 0); });
        overlaying = seconds_since(begin);
      }, [&] { masks.close(); });
    }
    Worker written([&] {
      run(segmented, [&] {
        while (const std::optional<Segmented> one = segmented.get()) {
          const Clock::time_point begin = Clock::now();
          std::vector<std::uint8_t> mask = writer.write(*one);
          writing += seconds_since(begin);
          if (options.overlay) masks.put({one->number, std::move(mask)});
        }
        masks.close();
      });
    }, [&] { segmented.close(); masks.close(); });
    for (bool more = true; more;) {
      std::optional<Sample> sample = read.get();
      more = sample.has_value();
      const Clock::time_point begin = Clock::now();
      std::vector<Segmented> results = more ? segmenter.push(std::move(*sample)) : segmenter.finish();
      inference += seconds_since(begin);
      for (Segmented& one : results) segmented.put(std::move(one));
    }
    segmented.close();
    written.join();
    (void)segmented.get();  // throws what the writer failed with
    if (overlay) overlay->join();
    masks.check();
  }
  writer.finish();
  const Record& record = writer.record;
  Json tracks = {{"video", track_json(video.video)}, {"audio", video.audio ? track_json(*video.audio) : Json()}};
  Json summary = {
      {"bundle", {{"name", model.name()}, {"manifest_sha256", manifest}}},
      {"video",
       {{"file", fs::path(item.video).filename().string()},
        {"width", video.width},
        {"height", video.height},
        {"frame_rate", video.rate ? Json(video.rate->value()) : Json("variable")},
        {"has_sound", video.audio.has_value()},
        {"tracks", tracks},
        {"sha256", content},
        {"key", key},
        {"clock_steps", 0},
        {"damaged", {{"video", 0}, {"audio", 0}, {"cut_short", false}}}}},
      {"settings", settings(options)},
      {"backend", backend_json(model, options)},
      {"versions", {{"avsbg", avsbg_version()}, {"libavcodec", avcodec_version()}}},
      {"seconds", record.seconds},
      {"masks", record.seconds},
      {"sounding_seconds", record.sounding},
      {"mean_mask_area", record.seconds ? record.area / static_cast<double>(record.seconds) : 0.0},
      {"seconds_spent",
       {{"decode", rounded(decoding, 1e4)},
        {"inference", rounded(inference, 1e4)},
        {"write_masks", rounded(writing, 1e4)},
        {"total", rounded(seconds_since(start), 1e4)}}},
      {"most_waiting", {{"read", read.most}, {"segmented", segmented.most}}},
      {"dropped_seconds", 0}};
  if (options.overlay) summary["seconds_spent"]["overlay"] = rounded(overlaying, 1e4);
  write_text(output.path() + "/summary.json", summary.dump(2) + '\n');
  output.publish();
  return summary;
}

}  // namespace avsbg_run
