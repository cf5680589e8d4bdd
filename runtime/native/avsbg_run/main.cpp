// avsbg-run: `avsbg run` and `avsbg verify` without Python.
#include <malloc.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <iostream>

#include "run.h"

namespace avsbg_run {
namespace {

void print_comparison(const avsbg_comparison* one, void*) {
  std::printf("%5lld  %-12s  %.1e  %.1e", static_cast<long long>(one->clips), one->output, one->largest_absolute,
              one->largest_relative);
  if (one->flips >= 0) {
    std::printf("  %.3f%%  %.4f", 100.0 * static_cast<double>(one->flips) / static_cast<double>(one->elements), one->miou);
  }
  std::printf("  %s\n", one->passed ? "within" : "beyond");
}

int verify(const Selected& selected, const Options& options) {
  const avsbg::Model& model = selected.model;
  std::printf("%s: %s\nclips  output        largest  relative  flips  mIoU\n", options.bundle.c_str(), avsbg_model_describe(model.get()));
  std::int32_t passed = 0;
  avsbg::check(avsbg_verify(model.get(), options.tolerance, print_comparison, nullptr, &passed));
  std::printf("%s: %s\n", selected.backend.c_str(), passed ? "pass" : "FAIL");
  return passed ? 0 : 1;
}

// The first signal; the second ends the program at once.
std::atomic<int> signal_number{0};

void note_signal(int number) {
  signal_number = number;
  std::signal(number, SIG_DFL);
}

int current_signal() { return signal_number; }

std::string spent(const Json& summary, const Selected& selected) {
  const std::string backend = selected.reasons.is_null() ? selected.backend : "auto (" + selected.backend + ")";
  return summary["seconds"].dump() + " s of video through " + selected.model.name() + " on " + backend + " in " +
         summary["seconds_spent"]["total"].dump() + " s: ";
}

// An error's sentences: of libavsbg's the hint is apart.
std::string describe(const std::exception& error) {
  const auto* const of_library = dynamic_cast<const avsbg::Exception*>(&error);
  if (of_library == nullptr || of_library->hint().empty()) return error.what();
  return error.what() + (" " + of_library->hint());
}

int run_files(const Selected& selected, const Options& options) {
  const std::vector<Item> items = find_videos(options.sources, options.output);
  const bool many = items[0].output != options.output;
  Json report = Json::array();
  for (const Item& item : items) {
    report.push_back({{"video", item.video}, {"output", item.output}, {"state", "not done"}, {"error", nullptr}});
  }
  if (many) std::filesystem::create_directories(options.output);
  int failed = 0;
  for (std::size_t i = 0; i < items.size(); ++i) {
    bool finished_before = false;
    try {
      const Json summary = segment_video(selected, options, items[i], current_signal, finished_before);
      report[i]["state"] = finished_before ? "finished before" : "done";
      std::cout << (finished_before ? items[i].output + " was finished before; --overwrite does it again"
                                    : items[i].video + ": " + spent(summary, selected) + items[i].output)
                << std::endl;
    } catch (const std::exception& error) {
      ++failed;
      report[i]["state"] = "failed";
      report[i]["error"] = describe(error);
      std::cerr << "error: " << describe(error) << std::endl;
    }
    if (many) write_text(options.output + "/batch.json", report.dump(2) + '\n');
  }
  if (failed > 0 && many) std::cerr << "error: " << failed << " of " << items.size() << " videos failed." << std::endl;
  return failed > 0 ? 1 : 0;
}

int run_live(const Selected& selected, const Options& options, const LiveSource& source) {
  std::optional<LiveSource> microphone;
  if (!options.microphone.empty()) {
    microphone = parse_live(options.microphone);
    if (!microphone) throw MediaError(options.microphone + " is no microphone.", "A microphone is named like alsa:default.");
  }
  std::string failure;
  const Json summary = segment_live(selected, options, source, microphone, current_signal, failure);
  std::cout << source.name << ": " << spent(summary, selected) << options.output << std::endl;
  if (!failure.empty()) {
    std::cerr << "error: " << failure << std::endl;
    return 1;
  }
  return signal_number != 0 ? 128 + signal_number : 0;
}

// The live source among the sources, if there is one.
std::optional<LiveSource> find_live(const Options& options) {
  std::optional<LiveSource> live;
  for (const std::string& source : options.sources) {
    const std::optional<LiveSource> one = parse_live(source);
    if (one && options.sources.size() > 1) {
      throw MediaError(one->name + " is a live source, and those run alone.", "Give each its own command.");
    }
    if (one) live.emplace(*one);
  }
  const std::pair<const char*, bool> given[] = {
      {"--microphone", !options.microphone.empty()}, {"--duration", options.duration.has_value()}, {"--policy", !options.policy.empty()}};
  for (const auto& [name, is_given] : given) {
    if (is_given && !live) throw MediaError(std::string(name) + " is for live sources, and " + options.sources[0] + " is none.");
  }
  return live;
}

}  // namespace
}  // namespace avsbg_run

int main(int count, char** arguments) {
  using namespace avsbg_run;
  for (int i = 1; i < count; ++i) {
    if (std::strcmp(arguments[i], "--help") == 0) return std::fputs(kUsage, stdout) < 0;
    if (std::strcmp(arguments[i], "--version") == 0) return std::printf("avsbg-run %s\n", avsbg_version()) < 0;
  }
  av_log_set_level(AV_LOG_FATAL);
  try {
    const Options options = parse_options(count, arguments);
    if (!options.hwaccel.empty()) check_hwaccel(options.hwaccel);
    const std::optional<LiveSource> live = options.verify ? std::nullopt : find_live(options);
    const Selected selected = open_bundle(options, live.has_value());
#ifdef __GLIBC__
    // glibc keeps what opening the network has freed, here some 30 MB of a small one: give it back to the system.
    malloc_trim(0);
#endif
    if (!selected.reasons.is_null()) std::cerr << describe_selection(selected.reasons) << std::endl;
    if (options.verify) return verify(selected, options);
    for (const int number : {SIGINT, SIGTERM}) std::signal(number, note_signal);
    return live ? run_live(selected, options, *live) : run_files(selected, options);
  } catch (const Interrupted& interrupted) {
    std::cerr << "interrupted; what was finished is kept, nothing half-written" << std::endl;
    return 128 + interrupted.signal;
  } catch (const UsageError& error) {
    std::cerr << "error: " << error.what() << ". See avsbg-run --help." << std::endl;
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "error: " << describe(error) << std::endl;
  }
  return 1;
}
