#include "inference/engine.h"

#include <unistd.h>

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

std::string choose_engine(const Bundle& bundle, const std::string& role, const SessionOptions& options) {
  const BackendSpec& spec = options.spec;
  const auto& engines = bundle.manifest().engines;
  const std::string build = "Make one with `avsbg build " + bundle.path() + " --backend " + spec.backend + "`.";
  std::vector<std::string> all, fitting;
  for (const auto& [name, record] : engines) {
    all.push_back(name);
    if (record.backend == spec.backend && GraphName::parse(record.graph).role == role &&
        (spec.implementation.empty() || spec.implementation == record.operator_form) &&
        (spec.precision.empty() || spec.precision == record.precision)) {
      fitting.push_back(name);
    }
  }
  if (!options.engine.empty()) {
    const auto found = engines.find(options.engine);
    if (found == engines.end()) {
      throw backend_error(bundle.path() + " has no engine '" + options.engine + "'.",
                          all.empty() ? "It has none. " + build : "It has: " + join(all) + ".");
    }
    const EngineRecord& record = found->second;
    if (record.backend != spec.backend || GraphName::parse(record.graph).role != role) {
      throw backend_error("the engine " + options.engine + " is one of " + record.backend + " for the graph " + record.graph +
                          "; asked for is one of " + spec.backend + " for " + role + ".");
    }
    return options.engine;
  }
  if (fitting.empty()) {
    throw backend_error(bundle.path() + " has no engine for " + spec.text + " and the graph " + role + ".",
                        (all.empty() ? "" : "It has: " + join(all) + ". ") + build);
  }
  if (fitting.size() > 1) {
    throw backend_error(std::to_string(fitting.size()) + " engines of " + bundle.path() + " fit: " + join(fitting) + ".",
                        "Say which: by precision and implementation (" + spec.backend + ":plugin:fp16), or by its name "
                        "(engine, --engine).");
  }
  return fitting[0];
}

void check_engine(const std::string& path, const std::string& content, const EngineRecord& record, bool trust) {
  const std::string magic = content.substr(0, 4);
  const std::string found = magic == "ptrt" ? "tensorrt" : magic == "vtrt" ? "tensorrt-rtx" : "";
  if (found.empty()) throw backend_error(path + " is not a TensorRT engine.", "Rebuild it with `avsbg build`.");
  if (found != record.backend) {
    throw backend_error(path + " is an engine of " + found + "; its record says " + record.backend + ".",
                        "Rebuild it with `avsbg build`.");
  }
  if (!trust && !is_built_here(sha256_of(content))) {
    throw backend_error(path + " was not built by this user on this machine, and an engine is native code.",
                        "Rebuild it with `avsbg build`, or, if you trust where it comes from, load it with --trust "
                        "(trust in avsbg_model_options).");
  }
}

void check_plugin(const std::string& path, const EngineRecord& record, const std::string& folder) {
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
                      "Rebuild the engine with `avsbg build`, or install the library that it was built with.");
}

}  // namespace avsbg
