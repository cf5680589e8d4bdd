// The library's two functions. Operators for the processor are registered, or, where the session names libavsbg_cuda,
// those for a GPU.
#include <algorithm>
#include <cstdlib>

#include "dispatch.h"
#include "operators.h"

namespace {

// SessionOptions.add_session_config_entry(kCudaKey, path of libavsbg_cuda.so), before the library is registered, gives
// the session the operators for CUDAExecutionProvider.
constexpr const char* kCudaKey = "avsbg.cuda_library";
constexpr unsigned kOldestApi = 20;

void register_operators(OrtSessionOptions* raw_options, unsigned api_version) {
  Ort::UnownedSessionOptions options(raw_options);
  const std::string library = options.GetConfigEntryOrDefault(kCudaKey, "");
  if (library.empty()) {
    avsbg::register_cpu_operators(options, api_version);
  } else {
    avsbg::register_cuda_operators(options, api_version, library);
  }
}

}  // namespace

extern "C" {

// Called by ONNX Runtime when the library is registered. Headers of a later API than the runtime's are fine: its
// version says which part of them it knows.
__attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                                                    const OrtApiBase* base) {
  const char* const version = base->GetVersionString();
  const unsigned minor = std::string(version).rfind("1.", 0) == 0 ? std::strtoul(version + 2, nullptr, 10)
                                                                  : ORT_API_VERSION;
  const unsigned api_version = std::min<unsigned>(minor, ORT_API_VERSION);
  const OrtApi* const api = base->GetApi(api_version);
  if (api_version < kOldestApi || api == nullptr) {
    const std::string message = std::string("avsbg: the operators need ONNX Runtime 1.20 or later, not ") + version;
    return base->GetApi(1)->CreateStatus(ORT_FAIL, message.c_str());
  }
  Ort::InitApi(api);
  return avsbg::guarded([&] { register_operators(options, api_version); });
}

// The paths that this CPU can run, best first, separated by ", ": the first is what "auto" takes.
__attribute__((visibility("default"))) const char* avsbg_cpu_paths() {
  static const std::string names = avsbg::cpu::available_path_names();
  return names.c_str();
}

}  // extern "C"
