#include "options.h"

#include <cstdlib>
#include <functional>
#include <map>
#include <stdexcept>

#include "places.h"

namespace avsbg_run {

const char* const kUsage =
    "usage: avsbg-run BUNDLE SOURCE... -o DIR [OPTION...]\n"
    "       avsbg-run verify BUNDLE [OPTION...]\n"
    "\n"
    "Segments what sounds in videos and live sources: DIR receives masks/ (a PNG per second), overlay.mp4, overlay.png,\n"
    "frames.jsonl and summary.json, as of `avsbg run`. For several videos, or a folder, each has such a directory in DIR.\n"
    "A live source is an address (rtsp://, udp://, http://, ...) or a camera (v4l2:/dev/video0); it ends with Ctrl-C, and\n"
    "what had come is kept. `verify` replays the bundle's test vectors and exits with 1 where an output differs by more\n"
    "than the tolerance.\n"
    "\n"
    "  -o, --output DIR           the directory to create\n"
    "  --backend NAME             BACKEND[:IMPLEMENTATION][:PRECISION]: onnxruntime, onnxruntime-cuda, tensorrt,\n"
    "                             tensorrt-rtx, or auto, the fastest that can run here; auto ($AVSBG_BACKEND)\n"
    "  --implementation NAME      of the operator: function, native, plain or plugin\n"
    "  --precision NAME           of the graphs\n"
    "  --threshold P              a pixel sounds where its probability exceeds this; 0.5\n"
    "  --no-sound                 give the network silence, not the sound track\n"
    "  --masks png|video|none     masks as PNG files, as one lossless video (masks.mkv), or not at all\n"
    "  --rle                      also write masks.coco.json, COCO's run lengths\n"
    "  --no-overlay               leave out overlay.mp4 and overlay.png\n"
    "  --probabilities            also write the network's probabilities as grey PNG files\n"
    "  --rate R|every-frame|auto  masks a second, each exact for its frame and the second of sound around it; auto: one,\n"
    "                             and in a file's overlay as many as this machine makes in its duration ($AVSBG_RATE)\n"
    "  --interpolate              between masks, in the overlay and in masks.mkv: probabilities linear in time\n"
    "  --mode clip|stream         clip by clip, or one encoder pass per second; by default clips, and live sources are\n"
    "                             streamed if the bundle can be\n"
    "  --microphone SOURCE        where a camera's sound comes from, e.g. alsa:default\n"
    "  --duration SECONDS         end a live source after so many\n"
    "  --policy block|drop-oldest what a live source that is too fast does: wait, or lose seconds\n"
    "  --video-track N, --audio-track N    from 0 on; by default those that players take\n"
    "  --skip-damaged             pass over frames and sound that cannot be decoded, and count them\n"
    "  --hwaccel KIND[:DEVICE]    decode frames on hardware, e.g. cuda or cuda:1; an error where that cannot\n"
    "  --threads N                of the backend\n"
    "  --device cpu|cuda|cuda:N   of the backend\n"
    "  --engine NAME, --trust     an engine of the bundle, also one that was not built here: it is native code\n"
    "  --allow-failed-accuracy    run what missed its accuracy threshold\n"
    "  --overwrite                replace the outputs of earlier runs\n"
    "  --tolerance D              of verify: the largest difference that passes in fp32; 1e-3\n"
    "  --runtime-library FILE     the inference engine's library, e.g. libonnxruntime.so.1; with auto that of ONNX Runtime\n"
    "  --backend-folder DIR       of libavsbg_backend_*.so\n"
    "  --version, --help\n"
    "\n"
    "Of `avsbg run` it lacks the backends that need Python: openvino and torch.\n";

namespace {

double number(const std::string& name, const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0') throw UsageError(name + " takes a number, not '" + text + "'");
  return value;
}

int count(const std::string& name, const std::string& text, int least) {
  const double value = number(name, text);
  if (!(value >= least && value < 1e9) || value != static_cast<int>(value)) {
    throw UsageError(name + " takes a whole number from " + std::to_string(least) + " on, not '" + text + "'");
  }
  return static_cast<int>(value);
}

std::string one_of(const std::string& name, const std::string& text, const std::vector<std::string>& choices) {
  std::string all;
  for (const std::string& choice : choices) {
    if (choice == text) return text;
    all += (all.empty() ? "" : ", ") + choice;
  }
  throw UsageError(name + " is one of " + all + ", not '" + text + "'");
}

std::string variable(const char* name, const std::string& otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr || *value == '\0' ? otherwise : value;
}

void check_rate(Options& options) {
  if (options.rate == "auto" || options.rate == "every-frame") return;
  char* end = nullptr;
  const long masks = std::strtol(options.rate.c_str(), &end, 10);
  if (options.rate.empty() || *end != '\0' || masks < 1 || masks > kHighestRate) {
    throw UsageError("'" + options.rate + "' is no rate of masks: it is a whole number from 1 to " +
                     std::to_string(kHighestRate) + ", every-frame or auto");
  }
  options.rate = std::to_string(masks);
}

void check_interpolation(const Options& options) {
  if (options.rate == "every-frame") {
    throw UsageError("at every-frame nothing lies between masks that could be interpolated: leave --interpolate out");
  }
  if (!options.shows_frames()) {
    throw UsageError("PNG files and run lengths are of the network's masks, with nothing between them: keep the overlay, "
                     "or write a mask video (--masks video)");
  }
  if (options.rate == "auto" && options.masks == "video") {
    throw UsageError("interpolated masks depend on the rate, and auto leaves that to the machine: name a rate, or leave "
                     "the mask video out");
  }
}

// The GPU's number that a backend is to take.
int parse_device(const std::string& text, const std::string& backend) {
  const bool is_of_gpu = backend.rfind("onnxruntime-cuda", 0) == 0 || backend.rfind("tensorrt", 0) == 0;
  const bool is_gpu = text == "cuda" || text.rfind("cuda:", 0) == 0;
  if (!is_gpu && text != "cpu") throw UsageError("--device is cpu, cuda or cuda:N, not '" + text + "'");
  if (backend != "auto" && is_gpu != is_of_gpu) {
    throw UsageError("the backend " + backend + " runs on " + (is_of_gpu ? "a GPU" : "the processor") + ", not on " + text);
  }
  return text.size() > 5 ? count("--device cuda:N", text.substr(5), 0) : 0;
}

}  // namespace

Options parse_options(int argument_count, char** arguments) {
  Options options;
  options.backend = variable("AVSBG_BACKEND", options.backend);
  options.rate = variable("AVSBG_RATE", options.rate);
  std::string implementation, precision, device;
  using Text = const std::string&;
  const std::map<std::string, std::function<void(Text)>> valued = {
      {"--output", [&](Text one) { options.output = one; }},
      {"-o", [&](Text one) { options.output = one; }},
      {"--backend", [&](Text one) { options.backend = one; }},
      {"--implementation", [&](Text one) { implementation = one; }},
      {"--precision", [&](Text one) { precision = one; }},
      {"--threshold", [&](Text one) { options.threshold = number("--threshold", one); }},
      {"--tolerance", [&](Text one) { options.tolerance = number("--tolerance", one); }},
      {"--masks", [&](Text one) { options.masks = one_of("--masks", one, {"png", "video", "none"}); }},
      {"--rate", [&](Text one) { options.rate = one; }},
      {"--mode", [&](Text one) { options.mode = one_of("--mode", one, {"clip", "stream"}); }},
      {"--hwaccel", [&](Text one) {
         if (one.empty()) throw UsageError("--hwaccel takes a kind of hardware decoders, such as cuda, not ''");
         options.hwaccel = one;
       }},
      {"--microphone", [&](Text one) { options.microphone = one; }},
      {"--duration", [&](Text one) { options.duration = number("--duration", one); }},
      {"--policy", [&](Text one) { options.policy = one_of("--policy", one, {"block", "drop-oldest"}); }},
      {"--video-track", [&](Text one) { options.video_track = count("--video-track", one, 0); }},
      {"--audio-track", [&](Text one) { options.audio_track = count("--audio-track", one, 0); }},
      {"--threads", [&](Text one) { options.threads = count("--threads", one, 1); }},
      {"--device", [&](Text one) { device = one; }},
      {"--engine", [&](Text one) { options.engine = one; }},
      {"--runtime-library", [&](Text one) { options.runtime_library = one; }},
      {"--backend-folder", [&](Text one) { options.backend_folder = one; }},
  };
  const std::map<std::string, bool*> flags = {
      {"--no-sound", &options.no_sound},     {"--rle", &options.rle},
      {"--trust", &options.trust},           {"--probabilities", &options.probabilities},
      {"--overwrite", &options.overwrite},   {"--allow-failed-accuracy", &options.allow_failed_accuracy},
      {"--no-overlay", &options.no_overlay}, {"--interpolate", &options.interpolate},
      {"--skip-damaged", &options.skip_damaged},
  };
  std::vector<std::string> plain;
  for (int i = 1; i < argument_count; ++i) {
    const std::string given = arguments[i];
    const std::size_t equals = given.rfind("--", 0) == 0 ? given.find('=') : std::string::npos;
    const std::string name = given.substr(0, equals);
    if (const auto found = valued.find(name); found != valued.end()) {
      if (equals == std::string::npos && i + 1 == argument_count) throw UsageError(name + " takes a value");
      found->second(equals == std::string::npos ? arguments[++i] : given.substr(equals + 1));
    } else if (flags.count(given)) {
      *flags.at(given) = true;
    } else if (given.size() > 1 && given[0] == '-') {
      throw UsageError("there is no option " + given);
    } else {
      plain.push_back(given);
    }
  }
  for (const std::string& part : {implementation, precision}) {
    if (!part.empty()) options.backend += ":" + part;
  }
  const std::string backend = options.backend.substr(0, options.backend.find(':'));
  if (backend == "openvino" || backend == "torch") {
    throw UsageError("avsbg-run has no backend " + backend + ", which `avsbg run` has: name auto, onnxruntime, "
                     "onnxruntime-cuda, tensorrt or tensorrt-rtx");
  }
  options.device_name = device;
  if (!device.empty()) options.device = parse_device(device, backend);
  options.verify = !plain.empty() && plain[0] == "verify";
  if (options.verify) plain.erase(plain.begin());
  if (plain.empty()) throw UsageError("no bundle was named");
  options.bundle = plain[0];
  options.sources.assign(plain.begin() + 1, plain.end());
  if (options.verify && !options.sources.empty()) throw UsageError("verify takes a bundle alone");
  if (!options.verify && (options.sources.empty() || options.output.empty())) {
    throw UsageError(options.output.empty() ? "no directory was named (-o DIR)" : "no video was named");
  }
  if (!(options.threshold >= 0 && options.threshold < 1)) throw UsageError("--threshold must lie in [0, 1)");
  if (options.duration && !(*options.duration >= 1)) throw UsageError("--duration is a number of seconds from 1 on");
  check_rate(options);
  if (options.interpolate) check_interpolation(options);
  return options;
}

}  // namespace avsbg_run
