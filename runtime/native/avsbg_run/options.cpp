#include "options.h"

#include <cstdlib>
#include <functional>
#include <map>
#include <stdexcept>

namespace avsbg_run {

const char* const kUsage =
    "usage: avsbg-run BUNDLE SOURCE... -o DIR [OPTION...]\n"
    "       avsbg-run verify BUNDLE [OPTION...]\n"
    "\n"
    "Segments what sounds in videos: DIR receives masks/ (a PNG per second), overlay.mp4, frames.jsonl and summary.json,\n"
    "as of `avsbg run`. For several videos, or a folder, each has such a directory in DIR. `verify` replays the bundle's\n"
    "test vectors and exits with 1 where an output differs by more than the tolerance.\n"
    "\n"
    "  -o, --output DIR           the directory to create\n"
    "  --backend NAME             BACKEND[:IMPLEMENTATION][:PRECISION]; onnxruntime by default\n"
    "  --implementation NAME      of the operator: function, native, plain or plugin\n"
    "  --precision NAME           of the graphs\n"
    "  --threshold P              a pixel sounds where its probability exceeds this; 0.5\n"
    "  --no-sound                 give the network silence, not the sound track\n"
    "  --masks png|none           masks as PNG files, or not at all\n"
    "  --rle                      also write masks.coco.json, COCO's run lengths\n"
    "  --no-overlay               leave out overlay.mp4\n"
    "  --probabilities            also write the network's probabilities as grey PNG files\n"
    "  --mode clips|stream        clip by clip, or one encoder pass per second\n"
    "  --video-track N, --audio-track N    from 0 on; by default those that players take\n"
    "  --threads N, --device N    of the backend\n"
    "  --engine NAME, --trust     an engine of the bundle: native code of whoever made it\n"
    "  --allow-failed-accuracy    run what missed its accuracy threshold\n"
    "  --overwrite                replace the outputs of earlier runs\n"
    "  --tolerance D              of verify: the largest difference that passes in fp32; 1e-3\n"
    "  --runtime-library FILE     the inference engine's library, e.g. libonnxruntime.so.1\n"
    "  --backend-folder DIR       of libavsbg_backend_*.so\n"
    "  --version, --help\n";

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

}  // namespace

Options parse_options(int argument_count, char** arguments) {
  Options options;
  std::string implementation, precision;
  using Text = const std::string&;
  const std::map<std::string, std::function<void(Text)>> valued = {
      {"--output", [&](Text one) { options.output = one; }},
      {"-o", [&](Text one) { options.output = one; }},
      {"--backend", [&](Text one) { options.backend = one; }},
      {"--implementation", [&](Text one) { implementation = one; }},
      {"--precision", [&](Text one) { precision = one; }},
      {"--threshold", [&](Text one) { options.threshold = number("--threshold", one); }},
      {"--tolerance", [&](Text one) { options.tolerance = number("--tolerance", one); }},
      {"--masks", [&](Text one) { options.masks = one_of("--masks", one, {"png", "none"}); }},
      {"--mode", [&](Text one) { options.mode = one_of("--mode", one, {"clips", "stream"}); }},
      {"--video-track", [&](Text one) { options.video_track = count("--video-track", one, 0); }},
      {"--audio-track", [&](Text one) { options.audio_track = count("--audio-track", one, 0); }},
      {"--threads", [&](Text one) { options.threads = count("--threads", one, 1); }},
      {"--device", [&](Text one) { options.device = count("--device", one, 0); }},
      {"--engine", [&](Text one) { options.engine = one; }},
      {"--runtime-library", [&](Text one) { options.runtime_library = one; }},
      {"--backend-folder", [&](Text one) { options.backend_folder = one; }},
  };
  const std::map<std::string, bool*> flags = {
      {"--no-sound", &options.no_sound},   {"--rle", &options.rle},
      {"--trust", &options.trust},         {"--probabilities", &options.probabilities},
      {"--overwrite", &options.overwrite}, {"--allow-failed-accuracy", &options.allow_failed_accuracy},
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
    } else if (given == "--no-overlay") {
      options.overlay = false;
    } else if (given.size() > 1 && given[0] == '-') {
      throw UsageError("there is no option " + given);
    } else {
      plain.push_back(given);
    }
  }
  for (const std::string& part : {implementation, precision}) {
    if (!part.empty()) options.backend += ":" + part;
  }
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
  return options;
}

}  // namespace avsbg_run
