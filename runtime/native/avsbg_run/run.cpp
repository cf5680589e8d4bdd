#include "run.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <future>
#include <set>

#include "libavsbg/bundle/sha256.h"
#include "pipeline.h"

namespace avsbg_run {
namespace fs = std::filesystem;
namespace {

const std::set<std::string> kSuffixes = {".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg",
                                         ".mpg", ".mts", ".ogv", ".ts",   ".vob", ".webm", ".wmv"};
// The part of the machine's time that masks may take where their rate is left to it: the rest is for decoding the video
// twice and encoding the overlay.
constexpr double kShare = 0.5;

// The rate of masks of a run, and what it follows from.
struct ChosenRate {
  Fraction masks{1};  // a second
  std::optional<double> seconds_per_mask;
};

ChosenRate choose_rate(const avsbg::Model& model, const Options& options, bool stream, std::optional<Fraction> frame_rate) {
  if (options.rate != "auto") return {masks_a_second(options.rate, frame_rate), std::nullopt};
  if (options.no_overlay) return {};
  const double seconds = measure_mask(model, stream);
  const double most = seconds > 0 ? std::min(kShare / seconds, static_cast<double>(kHighestRate)) : kHighestRate;
  const bool is_enough = frame_rate && *frame_rate > Fraction(0) && frame_rate->value() <= most;
  const Fraction masks = is_enough ? *frame_rate : Fraction(static_cast<std::int64_t>(most));
  return {std::max(Fraction(1), masks), seconds};
}

std::optional<Places> make_places(
    const avsbg::Model& model, const Options& options, const Fraction& rate, std::optional<Fraction> frame_rate) {
  if (rate == Fraction(1) && !options.interpolate) return std::nullopt;
  return Places(rate, model.info().frames, model.info().frame_offset, frame_rate);
}

SegmenterOptions segmenter_options(const Options& options, bool stream, bool live) {
  const bool is_several = options.rate != "1";
  return {stream, live, is_several && options.rate != "auto" && !live, is_several};
}

void check_classes(const avsbg::Model& model, const Options& options) {
  if (model.info().labels == 0) return;
  const std::string decides = "the network decides between " + std::to_string(model.info().labels) + " classes";
  if (options.threshold != Options().threshold) {
    throw MediaError(decides + ", and a threshold does not apply.", "Leave the threshold out.");
  }
  if (options.interpolate) throw MediaError(decides + ", and nothing lies between two of them.", "Do not interpolate.");
}

// Reads a file's samples.
class FileReader {
 public:
  FileReader(const avsbg::Model& model, const VideoInfo& video, const Options& options, const Fraction& rate, Damage* damage)
      : model_(model), video_(video), rate_(model.info().sample_rate),
        frames_(video, Places(rate, model.info().frames, model.info().frame_offset, video.rate), damage) {
    if (!model.info().uses_audio || options.no_sound) return;
    if (!video.audio) {
      throw MediaError(video.path + " has no audio track that can be decoded, and the network uses audio.",
                       "Give a video with sound; --no-sound gives the network silence instead.");
    }
    sound_.emplace(video, rate_, damage);
    windows_.emplace([this](std::size_t count) { return sound_->read(count); }, rate_);
  }

  std::optional<Sample> next() {
    const std::optional<ChosenFrame> chosen = frames_.next();
    if (!chosen) return std::nullopt;
    if (chosen->frame != earlier_) {  // a frame may stand for several places
      earlier_ = chosen->frame;
      picture_ = std::make_shared<Picture>(Picture{video_.width, video_.height, displayed(*earlier_, video_)});
      small_.reset();
    }
    if (chosen->place.phase != 0 && !small_) small_ = resize_picture(model_, *picture_);
    const auto count = static_cast<std::size_t>((chosen->length * Fraction(rate_)).round());
    return Sample{chosen->number, chosen->place, chosen->time, chosen->place.phase == 0 ? picture_ : small_,
                  windows_ ? windows_->read(chosen->place, chosen->length) : std::vector<float>(count)};
  }

 private:
  const avsbg::Model& model_;
  const VideoInfo& video_;
  const int rate_;
  FrameChooser frames_;
  std::optional<SoundReader> sound_;
  std::optional<SoundWindows> windows_;
  FramePtr earlier_;
  PicturePtr picture_, small_;  // of `earlier_`, in the source's size and in the network's
};

Json track_json(const Track& track) {
  return {{"index", track.index}, {"number", track.number}, {"codec", track.codec},
          {"language", track.language.empty() ? Json() : Json(track.language)}};
}

Json rate_json(const Options& options) {
  const bool is_number = options.rate != "auto" && options.rate != "every-frame";
  return is_number ? Json(std::stoi(options.rate)) : Json(options.rate);
}

Json settings(const Options& options, bool stream) {
  Json chosen = {{"threshold", options.threshold}, {"silent", options.no_sound},          {"masks", options.masks},
                 {"rle", options.rle},             {"probabilities", options.probabilities}, {"overlay", !options.no_overlay},
                 {"target", options.backend},      {"stream", stream}};
  if (options.video_track) chosen["video_track"] = *options.video_track;
  if (options.audio_track) chosen["audio_track"] = *options.audio_track;
  if (options.skip_damaged) chosen["skip_damaged"] = true;
  if (options.rate != "1") chosen["rate"] = rate_json(options);
  if (options.interpolate) chosen["interpolate"] = true;
  if (!options.hwaccel.empty()) chosen["hwaccel"] = options.hwaccel;
  return chosen;
}

Json backend_json(const avsbg::Model& model, const SegmenterOptions& segmenter, std::size_t phases) {
  const Json described = Json::parse(avsbg_model_describe(model.get()));
  Json backend;
  if (segmenter.stream) {
    backend = {{"spacing", segmenter.live ? "timestamp" : "published"},
               {"encode", described["encode"]}, {"decode", described["decode"]}};
  } else {
    backend = described["clip"];
  }
  backend["mode"] = segmenter.stream ? "stream" : "clip";
  if (segmenter.interleaved) backend["phases"] = phases;
  return backend;
}

// Writes summary.json; `selection` holds the reasons of `auto`, `source` what else is known of the source.
Json write_summary(const Work& work, const RunStatistics& statistics, const ChosenRate& rate, const Json& selection,
                   const Json& source) {
  const Options& options = work.options;
  const VideoInfo& video = work.video;
  const Record& record = statistics.record;
  Json summary = {
      {"bundle", {{"name", work.model.name()}, {"manifest_sha256", avsbg_model_manifest_sha256(work.model.get())}}},
      {"video",
       {{"file", video.path},
        {"width", video.width},
        {"height", video.height},
        {"frame_rate", video.rate ? Json(video.rate->value()) : Json("variable")},
        {"has_sound", video.audio.has_value()},
        {"tracks", {{"video", track_json(video.video)}, {"audio", video.audio ? track_json(*video.audio) : Json()}}}}},
      {"settings", settings(options, work.segmenter.stream)},
      {"backend", backend_json(work.model, work.segmenter, statistics.phases)},
      {"versions", {{"avsbg", avsbg_version()}, {"libavcodec", avcodec_version()}}},
      {"seconds", record.seconds},
      {"masks", record.masks},
      {"sounding_seconds", record.sounding},
      {"mean_mask_area", record.areas > 0 ? record.area / static_cast<double>(record.areas) : 0.0},
      {"seconds_spent", statistics.seconds_spent},
      {"most_waiting", statistics.most_waiting},
      {"dropped_seconds", statistics.dropped_seconds}};
  summary["video"].update(source);
  if (!selection.is_null()) summary["selection"] = selection;
  summary.update(statistics.left_out);
  if (options.rate != "1") {
    summary["rate"] = {{"masks", rounded(rate.masks.value(), 1e6)},
                       {"asked", rate_json(options)},
                       {"seconds_per_mask", rate.seconds_per_mask ? Json(rounded(*rate.seconds_per_mask, 1e6)) : Json()}};
  }
  if (statistics.interpolated) summary["interpolated_masks"] = *statistics.interpolated;
  write_text(work.directory + "/summary.json", summary.dump(2) + '\n');
  return summary;
}

}  // namespace

std::vector<Item> find_videos(const std::vector<std::string>& sources, const std::string& output) {
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

Json segment_video(const Selected& selected, const Options& options, const Item& item, const Signal& signal,
                   bool& finished_before) {
  const avsbg::Model& model = selected.model;
  check_classes(model, options);
  if (!fs::is_regular_file(item.video)) throw MediaError("there is no video at " + item.video + ".");
  // Hashed while it is segmented.
  const std::shared_future<std::string> content = std::async(std::launch::async, avsbg::sha256_of_file, item.video).share();
  const auto key = [&] {
    return avsbg::sha256_of(dump_sorted({{"video", content.get()},
                                         {"bundle", avsbg_model_manifest_sha256(model.get())},
                                         {"options", settings(options, selected.stream)}}));
  };
  finished_before = false;
  if (fs::exists(item.output + "/summary.json") && !options.overwrite) {
    std::ifstream file(item.output + "/summary.json");
    const Json earlier = Json::parse(file, nullptr, /*allow_exceptions=*/false);
    if (earlier.is_object() && earlier.contains("video") && earlier["video"].is_object() &&
        earlier["video"].value("key", Json()) == key()) {
      finished_before = true;
      return earlier;
    }
    throw MediaError(item.output + " exists already and is of another video, another bundle or other options.",
                     "Choose another directory, or replace it with --overwrite.");
  }
  Damage of_probe, damage, of_overlay;
  // Sound that the network does not get is no reason to refuse a file: the overlay goes without what is damaged of it.
  const bool tolerates_sound = options.skip_damaged || options.no_sound || !model.info().uses_audio;
  of_overlay.tolerates_video = options.skip_damaged;
  VideoInfo video = probe(item.video, {options.video_track, options.audio_track}, options.skip_damaged ? &of_probe : nullptr);
  video.hwaccel = options.hwaccel;
  const ChosenRate rate = choose_rate(model, options, selected.stream, video.rate ? video.rate : video.mean_rate);
  FileReader reader(model, video, options, rate.masks, options.skip_damaged ? &damage : nullptr);
  OutputDirectory output(item.output, options.overwrite);
  Work work{model, options, video, output.path(), segmenter_options(options, selected.stream, /*live=*/false),
            make_places(model, options, rate.masks, video.rate), /*drops=*/false, /*fragments=*/false, {}, {}};
  work.read = [&](const std::function<bool(Sample)>& take) {
    while (std::optional<Sample> sample = reader.next()) {
      if (const int number = signal(); number != 0) throw Interrupted{number};
      if (!take(std::move(*sample))) return;
    }
  };
  work.frames = [&] {
    auto container = std::make_unique<Container>(video, tolerates_sound ? &of_overlay : nullptr);
    container->open_decoder(video.video.index, 0);
    if (video.audio) container->open_decoder(video.audio->index, 1);
    return container;
  };
  const RunStatistics statistics = write_outputs(work);
  const Json source = {{"file", fs::path(item.video).filename().string()},
                       {"sha256", content.get()},
                       {"key", key()},
                       {"clock_steps", video.clock.steps()},
                       // Each reader of a file comes across the same ones.
                       {"damaged", {{"video", std::max(damage.video, of_overlay.video)},
                                    {"audio", std::max(damage.audio, of_overlay.audio)},
                                    {"cut_short", damage.cut_short || of_overlay.cut_short}}}};
  const Json summary = write_summary(work, statistics, rate, selected.reasons, source);
  output.publish();
  return summary;
}

Json segment_live(const Selected& selected, const Options& options, const LiveSource& source,
                  const std::optional<LiveSource>& microphone, const Signal& signal, std::string& failure) {
  const avsbg::Model& model = selected.model;
  check_classes(model, options);
  check_output(options.output, options.overwrite);
  std::atomic<bool> aborted{false};
  LiveReader reader(source, microphone, {options.video_track, options.audio_track}, options.hwaccel, options.duration,
                    [&] { return aborted || signal() != 0; });
  if (!reader.video.audio && model.info().uses_audio && !options.no_sound) {
    throw MediaError(source.name + " has no sound, and the network uses audio.",
                     "Name a microphone with --microphone, or use --no-sound to run it with silence.");
  }
  ChosenRate rate;  // what a live source has time for shows while it runs
  if (options.rate != "auto") rate = choose_rate(model, options, selected.stream, reader.video.mean_rate);
  const std::string policy = !options.policy.empty() ? options.policy : source.waits ? "block" : "drop-oldest";
  Channel<OverlayItem> packets(SIZE_MAX);
  OutputDirectory output(options.output, options.overwrite);
  Work work{model, options, reader.video, output.path(), segmenter_options(options, selected.stream, /*live=*/true),
            make_places(model, options, rate.masks, std::nullopt), policy == "drop-oldest", /*fragments=*/true, {}, {}};
  work.read = [&](const std::function<bool(Sample)>& take) {
    reader.read(model, options.no_sound, rate.masks, options.shows_frames() ? &packets : nullptr, take);
  };
  work.frames = [&] { return reader.frames(packets); };
  work.abort = [&] {
    aborted = true;
    packets.close();
  };
  RunStatistics statistics;
  try {
    statistics = write_outputs(work);
  } catch (const MediaError&) {
    if (!reader.failure.empty()) throw MediaError(reader.failure);
    throw;
  }
  failure = reader.failure;
  const Json live = {{"ended", signal() != 0 ? "stopped" : failure.empty() ? "by itself" : failure},
                     {"policy", policy},
                     {"microphone", microphone ? Json(microphone->name) : Json()},
                     {"damaged", reader.damaged},
                     {"late_sound", reader.late_sound}};
  const Json summary = write_summary(work, statistics, rate, selected.reasons, {{"live", live}});
  output.publish();
  return summary;
}

}  // namespace avsbg_run
