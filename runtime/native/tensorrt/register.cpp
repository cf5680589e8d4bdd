// libavsbg_tensorrt_register.so: for programs that open a plugin library with dlopen and expect it to register itself,
// as Triton (--backend-config=tensorrt,plugins=...), Polygraphy (--plugins) and trtexec --staticPlugins do. When opened,
// it has the TensorRT of the process load libavsbg_tensorrt.so, which lies beside it.
//
// IPluginRegistry is not a versioned interface, so this serves the major version of TensorRT that it was built for.
#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <cstdio>
#include <string>

namespace {

#define AVSBG_TEXT(value) #value
#define AVSBG_TEXT_OF(macro) AVSBG_TEXT(macro)
constexpr char const* kTensorRT = "libnvinfer.so." AVSBG_TEXT_OF(NV_TENSORRT_MAJOR);

void complain(std::string const& what) {
  std::fprintf(stderr, "avsbg: the TensorRT plugin was not registered: %s\n", what.c_str());
}

__attribute__((constructor)) void register_plugin() {
  // By name, since the process may have opened TensorRT for one of its libraries only, where a look-up of the symbol
  // does not see it, or, like Polygraphy, may open it later.
  void* const tensorrt = dlopen(kTensorRT, RTLD_LAZY);
  if (tensorrt == nullptr) {
    return complain(std::string("built for ") + kTensorRT + ", which this process cannot load");
  }
  auto const get_registry =
      reinterpret_cast<nvinfer1::IPluginRegistry* (*)()>(dlsym(tensorrt, "getPluginRegistry"));
  Dl_info self{};
  if (get_registry == nullptr || dladdr(reinterpret_cast<void*>(&register_plugin), &self) == 0) {
    return complain(std::string(kTensorRT) + " has no plugin registry");
  }
  std::string const path(self.dli_fname);
  std::string const plugin = path.substr(0, path.find_last_of('/') + 1) + "libavsbg_tensorrt.so";
  if (get_registry()->loadLibrary(plugin.c_str()) == nullptr) {
    complain("TensorRT cannot load " + plugin);
  }
}

}  // namespace
