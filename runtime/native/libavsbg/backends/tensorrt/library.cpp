#include "backends/tensorrt/library.h"

#include <dlfcn.h>

#include <stdexcept>

namespace avsbg_tensorrt {

std::string version_text(std::int32_t version) {
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." + std::to_string(version % 100);
}

void Logger::log(Severity severity, const char* message) noexcept {
  if (severity > Severity::kERROR) return;
  try {
    const std::lock_guard<std::mutex> hold(lock_);
    if (errors_.size() < 2) errors_.emplace_back(message);
  } catch (...) {  // a message less
  }
}

std::string Logger::take() {
  const std::lock_guard<std::mutex> hold(lock_);
  std::string text;
  for (const std::string& error : errors_) text += (text.empty() ? "" : "; ") + error;
  errors_.clear();
  return text.empty() ? "it gives no reason" : text;
}

Library::Library(const char* file) : name(file != nullptr ? file : kLibrary + std::to_string(NV_TENSORRT_MAJOR)) {
  const std::string install = std::string(" Install ") + kProduct + " " + version_text(kOldest) +
                              " or later of major version " + std::to_string(NV_TENSORRT_MAJOR) +
                              ", or name its library (runtime_library, --runtime-library).";
  void* const library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* const where = file != nullptr ? "" : " It was looked for where the loader looks: LD_LIBRARY_PATH, "
                                                     "ld.so.conf and the system's folders.";
    throw std::runtime_error(std::string("the library of ") + kProduct + ", " + name + ", cannot be loaded: " +
                             dlerror() + "." + where + install);
  }
  create_runtime = reinterpret_cast<decltype(create_runtime)>(dlsym(library, "createInferRuntime_INTERNAL"));
  plugin_registry = reinterpret_cast<decltype(plugin_registry)>(dlsym(library, "getPluginRegistry"));
  const auto get_version = reinterpret_cast<std::int32_t (*)()>(dlsym(library, "getInferLibVersion"));
  if (create_runtime == nullptr || plugin_registry == nullptr || get_version == nullptr) {
    throw std::runtime_error(name + " is not " + kProduct + "." + install);
  }
  version = get_version();
  // The interfaces grow at their ends within a major version.
  if (version / 10000 != NV_TENSORRT_MAJOR || version < kOldest) {
    throw std::runtime_error(name + " is of version " + version_text(version) + "." + install);
  }
}

}  // namespace avsbg_tensorrt
