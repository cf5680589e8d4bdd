#include <algorithm>
#include <array>
#include <cstdio>

#include "error.h"
#include "inference/session.h"

namespace avsbg {
namespace {

constexpr std::array<const char*, 6> kImplementations = {"efficient", "published", "function",
                                                         "native",    "plugin",    "plain"};

std::string percent(double share) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f%%", share * 100);
  return text;
}

std::string rounded(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

}  // namespace

BackendSpec BackendSpec::parse(const std::string& text) {
  BackendSpec spec;
  spec.text = text;
  std::string problem;
  bool first = true;
  for (std::size_t begin = 0; begin <= text.size(); first = false) {
    const std::size_t end = std::min(text.find(':', begin), text.size());
    const std::string part = text.substr(begin, end - begin);
    begin = end + 1;
    if (first) {
      spec.backend = part;
      if (part.empty()) problem = "it begins with a colon or is empty";
      continue;
    }
    const std::vector<std::string>& precisions = precision_names();
    const bool is_implementation =
        std::find(kImplementations.begin(), kImplementations.end(), part) != kImplementations.end();
    const bool is_rest = part.rfind("rest-", 0) == 0;
    const std::string value = is_rest ? part.substr(5) : part;
    std::string& field = is_implementation ? spec.implementation : is_rest ? spec.rest : spec.precision;
    if (!is_implementation && std::find(precisions.begin(), precisions.end(), value) == precisions.end()) {
      problem = "'" + part + "' is neither an implementation nor a precision";
    } else if (!field.empty()) {
      problem = "'" + part + "' is a second " + (is_implementation ? "implementation" : is_rest ? "rest" : "precision");
    }
    field = value;
  }
  if (problem.empty()) return spec;
  throw backend_error(
      "'" + text + "' names no backend; a backend is named BACKEND[:IMPLEMENTATION][:PRECISION], and " + problem + ".",
      "For instance onnxruntime, onnxruntime:native, tensorrt:plugin:fp16.");
}

nlohmann::json check_accuracy(const std::string& what, const AccuracyRecord* accuracy, bool ignore) {
  if (accuracy == nullptr) return {{"gate", "not measured"}};
  nlohmann::json judged = {
      {"miou", accuracy->miou}, {"least_miou", accuracy->min_miou}, {"flipped", accuracy->flipped}};
  if (accuracy->emulated) judged["emulated"] = true;
  if (accuracy->measured_clips) judged["judged_clips"] = *accuracy->measured_clips;
  judged["gate"] = accuracy->passed ? "passed" : "failed, overridden";
  if (accuracy->passed || ignore) return judged;
  throw backend_error(
      what + " missed its accuracy threshold: its masks have a mean IoU of " + rounded("%.4f", accuracy->miou) +
          " with the reference" + (accuracy->emulated ? " (emulated)" : "") + ", and " +
          rounded("%g", accuracy->min_miou) + " is demanded; " + percent(accuracy->flipped) + " of the pixels flip.",
      "Use a higher precision, measure on your own clips (convert --accuracy), or run it with --ignore-accuracy.");
}

}  // namespace avsbg
