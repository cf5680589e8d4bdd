// The options of avsbg-run, which are those of `avsbg run` and `avsbg verify`.
#pragma once

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace avsbg_run {

// A command line that cannot be meant: exits with 2.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Options {
  bool verify = false;
  std::string bundle, output, backend = "onnxruntime";
  std::vector<std::string> sources;
  double threshold = 0.5, tolerance = 1e-3;
  std::string masks = "png", mode = "clips";
  bool no_sound = false, rle = false, probabilities = false, overlay = true;
  std::optional<int> video_track, audio_track, threads, device;
  std::string engine, backend_folder, runtime_library;
  bool trust = false, allow_failed_accuracy = false, overwrite = false;
};

extern const char* const kUsage;

// Throws UsageError.
Options parse_options(int count, char** arguments);

}  // namespace avsbg_run
