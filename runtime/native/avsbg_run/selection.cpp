#include "selection.h"

#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>
#include <vector>

#include "pipeline.h"

namespace avsbg_run {
namespace {

const std::vector<std::string> kOfGpu = {"tensorrt", "tensorrt-rtx", "onnxruntime-cuda"};

avsbg::Model open(const Options& options, const std::string& backend, bool stream) {
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
  given.runtime_library = text(options.runtime_library);
  return avsbg::Model(options.bundle, given);
}

// Why no backend of a GPU can run here; empty if one may.
std::string gpu_problem(const Options& options) {
  if (options.device_name == "cpu") return "the processor was asked for";
  if (dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL) != nullptr) return "";
  return "the NVIDIA driver is not installed (libcuda.so.1 is not found)";
}

std::string reason_of(const avsbg::Exception& error) {
  return error.what() + (error.hint().empty() ? "" : " " + error.hint());
}

}  // namespace

Selected open_bundle(const Options& options, bool stream) {
  if (options.backend.rfind("auto", 0) != 0) return {open(options, options.backend, stream), options.backend, nullptr};
  const std::string rest = options.backend.substr(4);  // :IMPLEMENTATION, :PRECISION, both or neither
  const auto asks_for = [&](const std::vector<std::string>& names) {
    return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
      const std::size_t at = rest.find(':' + name);
      return at != std::string::npos && (at + 1 + name.size() == rest.size() || rest[at + 1 + name.size()] == ':');
    });
  };
  const bool names_implementation = asks_for({"function", "native", "plain", "plugin"});
  const bool names_precision = rest.size() > 0 && (!names_implementation || std::count(rest.begin(), rest.end(), ':') > 1);
  Json passed_over = Json::object();
  std::vector<std::pair<std::string, avsbg::Model>> opened;
  const auto attempt = [&](const std::string& backend) {
    try {
      opened.emplace_back(backend, open(options, backend, stream));
      return true;
    } catch (const avsbg::Exception& error) {
      if (error.status() == AVSBG_ERROR_BUNDLE) throw;  // no backend could run it
      passed_over[backend] = reason_of(error);
      return false;
    }
  };
  const std::string problem = gpu_problem(options);
  for (const std::string& backend : kOfGpu) {
    const bool runs_engines = backend != "onnxruntime-cuda";
    if (!problem.empty()) {
      passed_over[backend] = problem;
    } else if (runs_engines) {
      attempt(backend + rest + (names_precision ? "" : ":fp32"));
    } else if (options.engine.empty()) {
      attempt(backend + rest);
    }
  }
  if (options.engine.empty() && options.device_name.rfind("cuda", 0) != 0) {
    // Our kernel, where the graph has our operator and the library is there.
    if (names_implementation || !attempt("onnxruntime:native" + rest)) attempt("onnxruntime" + rest);
  }
  Json seconds = Json::object();
  std::size_t fastest = 0;
  if (opened.empty()) {
    std::string reasons;
    for (const auto& [backend, reason] : passed_over.items()) reasons += ' ' + backend + ": " + reason.get<std::string>();
    throw MediaError("no backend can run " + options.bundle + " here." + reasons);
  }
  if (opened.size() > 1) {
    std::vector<double> times;
    for (const auto& [backend, model] : opened) {
      times.push_back(measure_mask(model, stream) * model.info().frames);
      seconds[backend] = times.back();
    }
    fastest = static_cast<std::size_t>(std::min_element(times.begin(), times.end()) - times.begin());
  }
  const std::string source = opened.size() > 1 ? "measured" : "the only one that can run here";
  auto& [backend, model] = opened[fastest];
  const Json reasons = {{"backend", backend}, {"seconds", seconds}, {"passed_over", passed_over}, {"source", source}};
  return {std::move(model), backend, reasons};
}

std::string describe_selection(const Json& reasons) {
  std::string times, passed;
  for (const auto& [backend, seconds] : reasons["seconds"].items()) {
    times += (times.empty() ? "" : ", ") + backend + ' ' + std::to_string(std::lround(1e3 * seconds.get<double>())) + " ms";
  }
  std::map<std::string, std::string> by_reason;
  for (const auto& [backend, reason] : reasons["passed_over"].items()) {
    std::string& names = by_reason[reason.get<std::string>()];
    names += (names.empty() ? "" : ", ") + backend;
  }
  for (const auto& [reason, names] : by_reason) passed += (passed.empty() ? "" : "; ") + names + " (" + reason + ')';
  const std::string source = reasons["source"];
  return "auto took " + reasons["backend"].get<std::string>() + ", " +
         (times.empty() ? source : "by the time of one clip (" + source + "): " + times) +
         (passed.empty() ? "" : ". Passed over: " + passed);
}

}  // namespace avsbg_run
