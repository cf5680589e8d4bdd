#include "inference/plugin.h"

#include <dlfcn.h>
#include <unistd.h>

#include "error.h"

namespace avsbg {

std::string library_folder() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&library_folder), &info) == 0 || info.dli_fname == nullptr) return ".";
  const std::string path = info.dli_fname;
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

Plugin open_plugin(const std::string& name, const std::string& folder) {
  const std::string file = folder + "/libavsbg_backend_" + name + ".so";
  if (access(file.c_str(), R_OK) != 0) {
    throw backend_error("the backend " + name + " is not installed: there is no " + file + ".",
                        "Install it there, or name its folder (backend_folder, --backend-folder).");
  }
  void* const handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) throw backend_error(file + " cannot be loaded: " + dlerror() + ".");
  const std::shared_ptr<void> library(handle, dlclose);
  const auto function = reinterpret_cast<avsbg_backend_function>(dlsym(handle, "avsbg_backend"));
  const avsbg_backend_table* const table = function == nullptr ? nullptr : function();
  if (table == nullptr || table->abi != AVSBG_BACKEND_ABI) {
    throw backend_error(file + " is of another version of avsbg.", "Install libavsbg and its backends together.");
  }
  return {library, table};
}

}  // namespace avsbg
