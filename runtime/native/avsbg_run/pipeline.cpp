#include "pipeline.h"

#include <algorithm>
#include <chrono>

#include "channel.h"
#include "overlay.h"
#include "pictures.h"
#include "rate_control.h"

namespace avsbg_run {
namespace {

using SteadyClock = std::chrono::steady_clock;
// Samples that a step may be ahead of the next.
constexpr std::size_t kAhead = 4;

double seconds_since(SteadyClock::time_point begin) { return std::chrono::duration<double>(SteadyClock::now() - begin).count(); }

// Runs a step and closes the channel that it fills or empties, with its error if it has one.
template <typename Item, typename Step>
void run_step(Channel<Item>& channel, const Step& step) {
  try {
    step();
    channel.close();
  } catch (...) {
    channel.close(std::current_exception());
  }
}

ShowOptions show_options(const Work& work) {
  ShowOptions options;
  if (!work.options.no_overlay) options.overlay = work.directory + "/overlay.mp4";
  if (work.options.interpolate && work.options.masks == "video") options.mask_video = work.directory + "/masks.mkv";
  options.fragments = work.fragments;
  options.threshold = work.options.threshold;
  options.interpolate = work.options.interpolate;
  options.labels = labels_of(work.model);
  options.places = work.places;
  return options;
}

}  // namespace

std::vector<std::string> labels_of(const avsbg::Model& model) {
  std::vector<std::string> labels;
  for (int number = 0; number < model.info().labels; ++number) labels.push_back(avsbg_model_label(model.get(), number));
  return labels;
}

RunStatistics write_outputs(const Work& work) {
  const Options& options = work.options;
  const bool is_several = work.places && work.places->phases() > 1;
  ResultWriter writer(work.directory, work.video, labels_of(work.model), options, is_several && options.rate != "auto");
  ContactSheet sheet(work.video, labels_of(work.model));
  Segmenter segmenter(work.model, work.segmenter);
  const SteadyClock::time_point start = SteadyClock::now();
  double decoding = 0, inference = 0, writing = 0, showing = 0;
  std::int64_t reached = 0, made = 0;
  Channel<Sample> read(kAhead, work.drops);
  Channel<Segmented> segmented(kAhead);
  Channel<ShownMask> masks(kAhead);
  std::optional<RateControl> control;
  if (is_several && work.drops) control.emplace(work.places->phases(), kAhead - 1);
  {
    Worker reading([&] {
      run_step(read, [&] {
        double waiting = 0;
        const SteadyClock::time_point begin = SteadyClock::now();
        work.read([&](Sample sample) {
          if (control && !control->passes(sample.place, read.size())) return true;
          const SteadyClock::time_point full = SteadyClock::now();
          const bool is_taken = read.put(std::move(sample));
          waiting += seconds_since(full);
          return is_taken;
        });
        decoding = seconds_since(begin) - waiting;
      });
    }, [&] { read.close(); work.abort(); });
    std::optional<Worker> overlay;
    if (options.shows_frames()) {
      overlay.emplace([&] {
        const SteadyClock::time_point begin = SteadyClock::now();
        run_step(masks, [&] {
          const std::unique_ptr<FrameSource> frames = work.frames();
          made = show_frames(work.video, *frames, masks, show_options(work));
        });
        showing = seconds_since(begin);
      }, [&] { masks.close(); work.abort(); });
    }
    Worker written([&] {
      run_step(segmented, [&] {
        while (std::optional<Segmented> one = segmented.get()) {
          const SteadyClock::time_point begin = SteadyClock::now();
          std::vector<std::uint8_t> mask = writer.write(*one);
          if (!options.no_overlay && one->place.phase == 0) sheet.add(one->place.second, *one->picture, mask);
          writing += seconds_since(begin);
          if (!overlay) continue;
          ShownMask shown{one->number, {}, nullptr};
          if (options.interpolate) {
            one->picture.reset();
            shown.result = std::make_shared<const Segmented>(std::move(*one));
          } else {
            shown.mask = std::move(mask);
          }
          masks.put(std::move(shown));
        }
        masks.close();
      });
    }, [&] { segmented.close(); masks.close(); });
    for (bool more = true; more;) {
      std::optional<Sample> sample = read.get();
      more = sample.has_value();
      if (more) reached = std::max(reached, sample->place.second + 1);
      const SteadyClock::time_point begin = SteadyClock::now();
      std::vector<Segmented> results = more ? segmenter.push(std::move(*sample)) : segmenter.finish();
      inference += seconds_since(begin);
      for (Segmented& one : results) segmented.put(std::move(one));
    }
    segmented.close();
    written.join();
    (void)segmented.get();  // throws what the writer failed with
    if (writer.record.seconds == 0) throw MediaError(work.video.path + " ended before a second of it had come.");
    if (overlay) overlay->join();
    masks.check();
  }
  writer.finish();
  if (!options.no_overlay) sheet.save(work.directory + "/overlay.png");
  RunStatistics statistics;
  statistics.record = writer.record;
  statistics.phases = segmenter.phases();
  statistics.seconds_spent = {{"decode", rounded(decoding, 1e4)},
                              {"inference", rounded(inference, 1e4)},
                              {"write_masks", rounded(writing, 1e4)},
                              {"total", rounded(seconds_since(start), 1e4)}};
  if (options.shows_frames()) statistics.seconds_spent["overlay"] = rounded(showing, 1e4);
  statistics.most_waiting = {{"read", read.most}, {"segmented", segmented.most}};
  if (read.dropped > 0) statistics.dropped_seconds = reached - writer.record.seconds;
  if (control)
    statistics.left_out = {{"masks_left_out", control->left_out + read.dropped}, {"lowest_rate", control->lowest}};
  if (options.interpolate) statistics.interpolated = made;
  return statistics;
}

double measure_mask(const avsbg::Model& model, bool stream) {
  const avsbg_model_info& info = model.info();
  const auto count = static_cast<std::size_t>(info.frames);
  const std::vector<std::uint8_t> pixels(3 * static_cast<std::size_t>(info.width) * static_cast<std::size_t>(info.height), 128);
  const std::vector<float> sound(count * static_cast<std::size_t>(info.sample_rate));
  const avsbg_frame frame = avsbg::frame(pixels.data(), info.width, info.height);
  std::vector<double> seconds;
  std::optional<avsbg::Stream> streamed;
  if (stream) streamed.emplace(model);
  for (int round = 0; round < 4; ++round) {
    const SteadyClock::time_point begin = SteadyClock::now();
    if (streamed) {
      streamed->push_sound(sound.data(), sound.size(), 0.0);
      for (std::size_t i = 0; i < count; ++i) streamed->push(frame);
      streamed->cut();
      (void)streamed->poll();
    } else {
      (void)model.run_clip(std::vector<avsbg_frame>(count, frame), sound);
    }
    seconds.push_back(seconds_since(begin));
  }
  return *std::min_element(seconds.begin() + 1, seconds.end()) / info.frames;  // the first one also warms up
}

}  // namespace avsbg_run
