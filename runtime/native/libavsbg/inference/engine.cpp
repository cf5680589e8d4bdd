#include "inference/engine.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "bundle/sha256.h"
#include "error.h"

namespace avsbg {
namespace {

std::string join(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

// Whether `avsbg build` noted, for this user on this machine, that it built the engine with this hash.
bool is_built_here(const std::string& digest) {
  const char* const state = std::getenv("XDG_STATE_HOME");
  const char* const home = std::getenv("HOME");
  const std::string folder = state != nullptr && *state != '\0' ? state : std::string(home == nullptr ? "" : home) + "/.local/state";
  std::ifstream list(folder + "/avsbg/built-engines");
  for (std::string line; list >> line;) {
    if (line == digest) return true;
  }
  return false;
}

}  // namespace

std::string choose_engine(const Bundle& bundle, const std::string& role, const SessionOptions& options,
                          const std::function<int()>& compute_capability) {
  const BackendSpec& spec = options.spec;
  const auto& engines = bundle.manifest().engines;
  const auto takes = [](const std::string& asked, const std::string& has) { return asked.empty() || asked == has; };
  std::vector<std::string> all, others, fitting;
  for (const auto& [name, record] : engines) {
    all.push_back(name);
    if (record.backend != spec.backend) continue;
    others.push_back(name);
    if (GraphName::parse(record.graph).role == role && takes(spec.implementation, record.operator_form) &&
        takes(spec.precision, record.precision) && takes(spec.rest, record.rest.empty() ? "fp32" : record.rest)) {
      fitting.push_back(name);
    }
  }
  if (!options.engine.empty()) {
    const auto found = engines.find(options.engine);
    if (found == engines.end()) {
      throw backend_error(bundle.path() + " has no engine '" + options.engine + "'.",
                          all.empty() ? "It has none: make one with `avsbg build`." : "It has: " + join(all) + ".");
    }
    const EngineRecord& record = found->second;
    if (record.backend != spec.backend) {
      throw backend_error("the engine " + options.engine + " is one of " + record.backend + ", not of " + spec.backend + ".",
                          "Use --backend " + record.backend + ".");
    }
    if (GraphName::parse(record.graph).role != role) {
      throw backend_error("the engine " + options.engine + " is one of the graph " + record.graph + ", not of " + role + ".");
    }
    return options.engine;
  }
  if (fitting.empty()) {
    std::string asked, build = "avsbg build " + bundle.path() + " --backend " + spec.backend + " --precision " +
                               (spec.precision.empty() ? "fp16" : spec.precision);
    if (!spec.precision.empty()) asked += " " + spec.precision;
    if (!spec.rest.empty()) {
      asked += " rest-" + spec.rest;
      build += " --rest " + spec.rest;
    }
    if (!spec.implementation.empty()) {
      asked += " " + spec.implementation;
      build += " --implementation " + spec.implementation;
    }
    throw backend_error(bundle.path() + " has no" + asked + " engine of " + spec.backend + " for the graph " + role + ".",
                        (others.empty() ? "" : "It has: " + join(others) + ". ") + "Make one: " + build);
  }
  if (fitting.size() > 1) {
    const int here = compute_capability();
    std::vector<std::string> local;
    for (const std::string& name : fitting) {
      const std::vector<int>& capabilities = engines.at(name).compute_capabilities;
      if (std::find(capabilities.begin(), capabilities.end(), here) != capabilities.end()) local.push_back(name);
    }
    if (!local.empty()) fitting = local;
  }
  if (fitting.size() > 1) {
    throw backend_error(std::to_string(fitting.size()) + " engines of " + bundle.path() + " fit: " + join(fitting) + ".",
                        "Say which: by precision and implementation (" + spec.backend + ":plugin:fp16, " + spec.backend +
                            ":rest-fp16:int8), or by its name (engine, --engine).");
  }
  return fitting[0];
}

std::string rebuild_hint(const Bundle& bundle, const EngineRecord& record) {
  std::string text = "Rebuild it: avsbg build " + bundle.path() + " --backend " + record.backend + " --precision " +
                     record.precision + (record.rest.empty() ? "" : " --rest " + record.rest) + " --implementation " +
                     record.operator_form + " --batch-range";
  for (const std::int64_t clips : record.clips) text += " " + std::to_string(clips);
  return text + ".";
}

void check_engine(const std::string& path, const std::string& content, const EngineRecord& record, bool trust,
                  const std::string& rebuild) {
  const std::string magic = content.substr(0, 4);
  const std::string found = magic == "ptrt" ? "tensorrt" : magic == "vtrt" ? "tensorrt-rtx" : "";
  if (found.empty()) throw backend_error(path + " is " + (content.empty() ? "empty." : "not a TensorRT engine."), rebuild);
  if (found != record.backend) {
    throw backend_error(path + " is an engine of " + found + "; its record says " + record.backend + ".", rebuild);
  }
  if (!trust && !is_built_here(sha256_of(content))) {
    throw backend_error(path + " was not built by this user on this machine, and an engine is native code.",
                        rebuild + " Or, if you trust where it comes from, load it with --trust (trust in "
                                  "avsbg_model_options).");
  }
}

void check_plugin(const std::string& path, const EngineRecord& record, const std::string& folder,
                  const std::string& rebuild) {
  if (record.plugin_sha256.empty()) return;
  const std::string library = folder + "/libavsbg_tensorrt.so";
  if (access(library.c_str(), R_OK) != 0) {
    throw backend_error("the engine " + path + " needs the plugin library, and there is no " + library + ".",
                        "Install it there, or name its folder (backend_folder, --backend-folder).");
  }
  const std::string found = sha256(library);
  if (found == record.plugin_sha256) return;
  throw backend_error(library + " is not the plugin that " + path + " was built with: its sha256 is " + found +
                          ", the record says " + record.plugin_sha256 + ".",
                      rebuild + " Or install the library that it was built with.");
}

}  // namespace avsbg
