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
  std::string bundle, output, backend = "auto";
  std::vector<std::string> sources;
  double threshold = 0.5, tolerance = 1e-3;
  std::string masks = "png", rate = "auto";
  std::string mode, policy, microphone, hwaccel;  // empty where they were not given
  bool no_sound = false, rle = false, probabilities = false, no_overlay = false, interpolate = false, skip_damaged = false;
  std::optional<int> video_track, audio_track, threads;
  std::optional<double> duration;
  int device = 0;
  std::string device_name;  // as it was given
  std::string engine, backend_folder, runtime_library;
  bool trust = false, allow_failed_accuracy = false, overwrite = false;

  // Whether an output has all frames of the video, not only those of masks.
  bool shows_frames() const { return !no_overlay || (interpolate && masks == "video"); }
};

extern const char* const kUsage;

// Throws UsageError.
Options parse_options(int count, char** arguments);

}  // namespace avsbg_run
