#include "selection.h"

#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <vector>

#include "pipeline.h"

namespace avsbg_run {
namespace {

const std::set<std::string> kImplementations = {"function", "native", "plain", "plugin"};

bool is_onnxruntime(const std::string& backend) { return backend.rfind("onnxruntime", 0) == 0; }

// `is_chosen`: by `auto`, for whose several engines one library cannot serve.
avsbg::Model open(const Options& options, const std::string& backend, bool stream, bool is_chosen) {
  avsbg_model_options given = avsbg::init<avsbg_model_options>();
  const auto text = [](const std::string& one) { return one.empty() ? nullptr : one.c_str(); };
  given.backend = backend.c_str();
  given.uses = stream ? AVSBG_STREAMS : AVSBG_CLIPS;
  given.threads = options.threads.value_or(0);
  given.device = options.device;
  given.ignore_accuracy = options.allow_failed_accuracy || options.verify;
  given.trust = options.trust;
  given.engine = text(options.engine);
  given.backend_folder = text(options.backend_folder);
  if (!is_chosen || is_onnxruntime(backend)) given.runtime_library = text(options.runtime_library);
  return avsbg::Model(options.bundle, given);
}

// The reason that no backend of a GPU can run here; empty if one may.
std::string gpu_problem(const Options& options) {
  if (options.device_name == "cpu") return "the processor was asked for";
  if (dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL) != nullptr) return "";
  return "the NVIDIA driver is not installed (libcuda.so.1 is not found)";
}

// The manifest's entries of a kind, by name; none where it cannot be read, which opening the bundle then tells.
Json entries(const Options& options, const char* kind) {
  std::ifstream file(options.bundle + "/manifest.json");
  const Json manifest = Json::parse(file, nullptr, /*allow_exceptions=*/false);
  const Json found = manifest.is_object() ? manifest.value(kind, Json::object()) : Json::object();
  return found.is_object() ? found : Json::object();
}

bool runs_as_stream(const Options& options, bool live) {
  if (options.verify) return false;
  if (!options.mode.empty() || !live) return options.mode == "stream";
  const Json graphs = entries(options, "graphs");
  return graphs.contains("encode") && graphs.contains("decode");
}

std::string text_of(const Json& record, const char* name) {
  const Json value = record.is_object() ? record.value(name, Json()) : Json();
  return value.is_string() ? value.get<std::string>() : "";
}

// The implementation and precision of `auto:IMPLEMENTATION:PRECISION`.
struct Asked {
  std::string rest;  // as it was given, from the first colon on
  std::optional<std::string> implementation;
  bool names_precision = false;
};

Asked parse(const std::string& backend) {
  const std::size_t colon = std::min(backend.find(':'), backend.size());
  Asked asked{backend.substr(colon), std::nullopt, false};
  std::istringstream parts(asked.rest.substr(std::min<std::size_t>(1, asked.rest.size())));
  for (std::string part; std::getline(parts, part, ':');) {
    if (kImplementations.count(part)) asked.implementation = part;
    else if (part.rfind("rest-", 0) != 0) asked.names_precision = true;
  }
  return asked;
}

// The backends that may be able to run the bundle here; the reasons for the others are added.
std::vector<std::string> list_candidates(const Options& options, const Asked& asked, bool stream, Json& passed_over) {
  std::vector<std::string> found;
  const Json graphs = entries(options, "graphs"), engines = entries(options, "engines");
  bool has_operator = false;
  for (const char* const role : {"clip", "encode", "decode"}) {
    const bool is_used = stream != (std::string(role) == "clip");
    has_operator = has_operator || (is_used && text_of(graphs.value(role, Json()), "operator") == "custom");
  }
  // Our kernel, where the graph has our operator: without its library, the function of standard operators.
  const std::string native = has_operator && !asked.implementation ? ":native" : "";
  if (const std::string problem = gpu_problem(options); !problem.empty()) {
    for (const char* const backend : {"onnxruntime-cuda", "tensorrt", "tensorrt-rtx"}) passed_over[backend] = problem;
  } else {
    const std::string precision = asked.names_precision ? "" : ":fp32";
    for (const std::string backend : {"tensorrt", "tensorrt-rtx"}) {
      std::set<std::string> kinds;
      for (const Json& engine : engines) {
        if (text_of(engine, "backend") == backend) kinds.insert(text_of(engine, "operator"));
      }
      if (kinds.empty()) passed_over[backend] = "the bundle holds no engine of it";
      for (const std::string& kind : kinds) {
        found.push_back(backend + (asked.implementation ? "" : ":" + kind) + asked.rest + precision);
        if (asked.implementation) break;  // the one form that was asked for
      }
    }
    found.push_back("onnxruntime-cuda" + native + asked.rest);
    if (!native.empty()) found.push_back("onnxruntime-cuda" + asked.rest);
  }
  if (options.device_name.rfind("cuda", 0) != 0) {
    found.push_back("onnxruntime" + native + asked.rest);
    if (!native.empty()) found.push_back("onnxruntime" + asked.rest);
  }
  return found;
}

std::string list_reasons(const Json& passed_over) {
  std::map<std::string, std::string> by_reason;
  for (const auto& [backend, reason] : passed_over.items()) {
    std::string& names = by_reason[reason.get<std::string>()];
    names += (names.empty() ? "" : ", ") + backend;
  }
  std::string text;
  for (const auto& [reason, names] : by_reason) text += (text.empty() ? "" : "; ") + names + " (" + reason + ')';
  return text;
}

}  // namespace

Selected open_bundle(const Options& options, bool live) {
  const bool stream = runs_as_stream(options, live);
  if (options.backend.substr(0, options.backend.find(':')) != "auto") {
    return {open(options, options.backend, stream, false), options.backend, stream, nullptr};
  }
  const auto reasons = [](const std::string& backend, const Json& seconds, const Json& passed_over, const std::string& source) {
    return Json{{"backend", backend}, {"seconds", seconds}, {"passed_over", passed_over}, {"source", source}};
  };
  Json passed_over = Json::object(), seconds = Json::object();
  if (!options.engine.empty()) {
    const std::string backend = text_of(entries(options, "engines").value(options.engine, Json()), "backend");
    const std::string of_engine = backend.empty() ? "tensorrt" : backend;  // whose error says what engines there are
    return {open(options, of_engine, stream, false), of_engine, stream,
            reasons(of_engine, seconds, passed_over, "which the engine " + options.engine + " is for")};
  }
  const Asked asked = parse(options.backend);
  const std::vector<std::string> candidates = list_candidates(options, asked, stream, passed_over);
  const auto name_of = [](const std::string& backend) { return backend.substr(0, backend.find(':')); };
  const bool is_alone = std::all_of(candidates.begin(), candidates.end(), [&](const std::string& backend) {
    return name_of(backend) == name_of(candidates[0]);
  });
  for (const std::string& backend : candidates) {
    // The form without our kernel is for where that cannot run.
    if (seconds.contains(name_of(backend) + ":native" + asked.rest)) continue;
    try {
      Selected opened{open(options, backend, stream, true), backend, stream, nullptr};
      if (is_alone) {
        opened.reasons = reasons(backend, seconds, passed_over, "the only one that can run here");
        return opened;
      }
      seconds[backend] = measure_mask(opened.model, stream) * opened.model.info().frames;
    } catch (const avsbg::Exception& error) {
      if (error.status() == AVSBG_ERROR_BUNDLE) throw;  // a damaged file is not worked around
      passed_over[backend] = error.what() + (error.hint().empty() ? "" : " " + error.hint());
    }
  }
  if (seconds.empty()) {
    throw MediaError("no backend can run " + options.bundle + " here: " + list_reasons(passed_over) + '.');
  }
  std::string fastest = seconds.begin().key();
  for (const auto& [backend, time] : seconds.items()) {
    if (time.get<double>() < seconds[fastest].get<double>()) fastest = backend;
  }
  return {open(options, fastest, stream, true), fastest, stream, reasons(fastest, seconds, passed_over, "measured")};
}

std::string describe_selection(const Json& reasons) {
  std::string times;
  for (const auto& [backend, seconds] : reasons["seconds"].items()) {
    times += (times.empty() ? "" : ", ") + backend + ' ' + std::to_string(std::lround(1e3 * seconds.get<double>())) + " ms";
  }
  const std::string source = reasons["source"], passed = list_reasons(reasons["passed_over"]);
  return "auto took " + reasons["backend"].get<std::string>() + ", " +
         (times.empty() ? source : "by the time of one clip (" + source + "): " + times) +
         (passed.empty() ? "" : ". Passed over: " + passed);
}

}  // namespace avsbg_run
