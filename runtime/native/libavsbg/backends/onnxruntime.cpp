// The backend for ONNX Runtime, libavsbg_backend_onnxruntime.so: opens libonnxruntime.so.1 itself, whatever its version
// from 1.20 on, and so links to none.
#include <dlfcn.h>
#include <onnxruntime_c_api.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "backends/guard.h"
#include "inference/backend_api.h"

namespace {

constexpr unsigned kOldestApi = 20;
constexpr std::array<ONNXTensorElementDataType, 7> kTypes = {
    ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,    ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,   ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,   ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE};

class Runtime {
 public:
  explicit Runtime(const char* library) {
    // From 1.29 on ONNX Runtime reports sessions and graphs to its maker unless this is set when it starts.
    setenv("ORT_DISABLE_TELEMETRY", "1", /*overwrite=*/0);
    const char* const name = library != nullptr ? library : "libonnxruntime.so.1";
    library_ = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (library_ == nullptr) {
      const std::string where = library != nullptr ? "" : " It was looked for where the loader looks: LD_LIBRARY_PATH, "
                                                          "ld.so.conf and the system's folders.";
      throw std::runtime_error(std::string("ONNX Runtime's library ") + name + " cannot be loaded: " + dlerror() + "." +
                               where + " Install ONNX Runtime 1.20 or later, or name its library (runtime_library, "
                               "--runtime-library).");
    }
    const auto base_function = reinterpret_cast<const OrtApiBase* (*)()>(dlsym(library_, "OrtGetApiBase"));
    const OrtApiBase* const base = base_function == nullptr ? nullptr : base_function();
    version = base == nullptr ? "" : base->GetVersionString();
    const unsigned minor = version.rfind("1.", 0) == 0 ? std::strtoul(version.c_str() + 2, nullptr, 10) : 0;
    if (minor < kOldestApi) throw std::runtime_error(std::string(name) + " is no ONNX Runtime of version 1.20 or later.");
    api = base->GetApi(std::min<unsigned>(minor, ORT_API_VERSION));
    if (api == nullptr) throw std::runtime_error(std::string(name) + " " + version + " does not have the C interface of its version.");
  }
  // The library stays loaded: its threads and its allocator may outlive a session.

  void check(OrtStatus* status) const {
    if (status == nullptr) return;
    const std::string message = api->GetErrorMessage(status);
    api->ReleaseStatus(status);
    throw std::runtime_error(message);
  }

  const OrtApi* api = nullptr;
  std::string version;

 private:
  void* library_ = nullptr;
};

class OrtSessionHolder {
 public:
  // Delegates, so that the destructor releases what was made before an error.
  OrtSessionHolder(const avsbg_session_request& request, nlohmann::json& description) : OrtSessionHolder(request) {
    runtime_.check(api_.CreateEnv(ORT_LOGGING_LEVEL_ERROR, "avsbg", &env_));
    runtime_.check(api_.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory_));
    OrtSessionOptions* options = nullptr;
    runtime_.check(api_.CreateSessionOptions(&options));
    const std::unique_ptr<OrtSessionOptions, decltype(api_.ReleaseSessionOptions)> owner(options,
                                                                                         api_.ReleaseSessionOptions);
    set_options(request, options, description);
    try {
      add_external_data(request, options);
      runtime_.check(api_.CreateSessionFromArray(env_, request.content.data, request.content.bytes, options, &session_));
    } catch (const std::runtime_error& error) {
      throw std::runtime_error("ONNX Runtime " + runtime_.version + " cannot load " + request.file + ": " + error.what());
    }
    description["version"] = runtime_.version;
    description["threads"] = request.threads > 0 ? nlohmann::json(request.threads) : nlohmann::json("default");
    description["clips"] = "dynamic";
  }
  ~OrtSessionHolder() {
    if (session_ != nullptr) api_.ReleaseSession(session_);
    if (memory_ != nullptr) api_.ReleaseMemoryInfo(memory_);
    if (env_ != nullptr) api_.ReleaseEnv(env_);
  }
  OrtSessionHolder(const OrtSessionHolder&) = delete;
  OrtSessionHolder& operator=(const OrtSessionHolder&) = delete;

  void run(const avsbg_tensor* inputs, std::size_t input_count, avsbg_tensor* outputs, std::size_t output_count) const {
    std::vector<const char*> input_names, output_names;
    std::vector<OrtValue*> owned, given, results;
    const auto release = [&](OrtValue* value) { api_.ReleaseValue(value); };
    try {
      for (std::size_t i = 0; i < input_count; ++i) {
        input_names.push_back(inputs[i].name);
        if (inputs[i].handle == nullptr) owned.push_back(wrap(inputs[i]));
        given.push_back(inputs[i].handle != nullptr ? static_cast<OrtValue*>(inputs[i].handle) : owned.back());
      }
      for (std::size_t i = 0; i < output_count; ++i) {
        output_names.push_back(outputs[i].name);
        results.push_back(outputs[i].data != nullptr ? wrap(outputs[i]) : nullptr);
      }
      runtime_.check(api_.Run(session_, nullptr, input_names.data(), given.data(), input_count, output_names.data(),
                              output_count, results.data()));
      for (std::size_t i = 0; i < output_count; ++i) {
        if (outputs[i].data == nullptr) check_shape(results[i], outputs[i]);
      }
    } catch (...) {
      for (OrtValue* const value : owned) release(value);
      for (OrtValue* const value : results) release(value);
      throw;
    }
    for (OrtValue* const value : owned) release(value);
    for (std::size_t i = 0; i < output_count; ++i) {
      if (outputs[i].data != nullptr) release(results[i]);
      else outputs[i].handle = results[i];
    }
  }

  void release(void* handle) const { api_.ReleaseValue(static_cast<OrtValue*>(handle)); }

 private:
  explicit OrtSessionHolder(const avsbg_session_request& request)
      : runtime_(request.runtime_library), api_(*runtime_.api), file_(request.file) {}

  void set_options(const avsbg_session_request& request, OrtSessionOptions* options, nlohmann::json& description) {
    const auto entry = [&](const char* key, const std::string& value) {
      runtime_.check(api_.AddSessionConfigEntry(options, key, value.c_str()));
    };
    runtime_.check(api_.SetSessionLogSeverityLevel(options, ORT_LOGGING_LEVEL_ERROR));
    if (request.threads > 0) runtime_.check(api_.SetIntraOpNumThreads(options, request.threads));
    // As in runtime/backends/onnxruntime: ONNX Runtime's fusion of quantised nodes around float16 computes other numbers
    // than the graph says, and one of its optimisations breaks off on fp8.
    if (request.has_rest) entry("session.disable_quant_qdq", "1");
    if (std::strcmp(request.precision, "fp8") == 0) entry("optimization.disable_specified_optimizers", "ClipQuantRewrite");
    const bool on_gpu = std::strcmp(request.backend, "onnxruntime-cuda") == 0;
    const bool native = std::strcmp(request.implementation, "native") == 0;
    description["kernel"] = nullptr;
    description["providers"] = {"CPUExecutionProvider"};
    if (on_gpu) {
      entry("session.disable_cpu_ep_fallback", "1");
      append_cuda(options, request.device);
      description["providers"] = {"CUDAExecutionProvider", "CPUExecutionProvider"};
    }
    if (!native) return;
    const std::string folder = request.library_folder, operators = folder + "/libavsbg_onnxruntime.so";
    if (on_gpu) {
      entry("avsbg.cuda_library", folder + "/libavsbg_cuda.so");
      entry("avsbg.cuda_tf32", "0");
      description["kernel"] = "CUDA";
    } else {
      entry("avsbg.cpu_path", "auto");
      description["kernel"] = cpu_path(operators);
    }
    runtime_.check(api_.RegisterCustomOpsLibrary_V2(options, operators.c_str()));
  }

  // Weights beside the graph, from the memory whose hash was checked.
  void add_external_data(const avsbg_session_request& request, OrtSessionOptions* options) const {
    std::vector<const char*> names;
    std::vector<char*> contents;
    std::vector<std::size_t> sizes;
    for (std::size_t i = 0; i < request.external_count; ++i) {
      names.push_back(request.external_data[i].name);
      contents.push_back(const_cast<char*>(static_cast<const char*>(request.external_data[i].data)));
      sizes.push_back(request.external_data[i].bytes);
    }
    if (names.empty()) return;
    runtime_.check(api_.AddExternalInitializersFromFilesInMemory(options, names.data(), contents.data(), sizes.data(),
                                                                 names.size()));
  }

  void append_cuda(OrtSessionOptions* options, int device) const {
    OrtCUDAProviderOptionsV2* cuda = nullptr;
    runtime_.check(api_.CreateCUDAProviderOptions(&cuda));
    const std::unique_ptr<OrtCUDAProviderOptionsV2, decltype(api_.ReleaseCUDAProviderOptions)> owner(
        cuda, api_.ReleaseCUDAProviderOptions);
    const std::string number = std::to_string(device);
    const char* const keys[] = {"device_id", "use_tf32"};
    const char* const values[] = {number.c_str(), "0"};
    runtime_.check(api_.UpdateCUDAProviderOptions(cuda, keys, values, 2));
    runtime_.check(api_.SessionOptionsAppendExecutionProvider_CUDA_V2(options, cuda));
  }

  // The instruction set that the operator library takes on this processor.
  static std::string cpu_path(const std::string& library) {
    void* const handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      throw std::runtime_error("the operator library " + library + " cannot be loaded: " + dlerror() +
                               ". Use the implementation function, which needs none.");
    }
    const auto paths = reinterpret_cast<const char* (*)()>(dlsym(handle, "avsbg_cpu_paths"));
    const std::string names = paths == nullptr ? "" : paths();
    dlclose(handle);
    return names.substr(0, names.find(','));
  }

  OrtValue* wrap(const avsbg_tensor& tensor) const {
    OrtValue* value = nullptr;
    runtime_.check(api_.CreateTensorWithDataAsOrtValue(memory_, tensor.data, tensor.bytes, tensor.shape,
                                                       static_cast<std::size_t>(tensor.rank),
                                                       kTypes[static_cast<std::size_t>(tensor.dtype)], &value));
    return value;
  }

  void check_shape(OrtValue* value, const avsbg_tensor& tensor) const {
    OrtTensorTypeAndShapeInfo* info = nullptr;
    runtime_.check(api_.GetTensorTypeAndShape(value, &info));
    const std::unique_ptr<OrtTensorTypeAndShapeInfo, decltype(api_.ReleaseTensorTypeAndShapeInfo)> owner(
        info, api_.ReleaseTensorTypeAndShapeInfo);
    ONNXTensorElementDataType type{};
    std::size_t rank = 0;
    runtime_.check(api_.GetTensorElementType(info, &type));
    runtime_.check(api_.GetDimensionsCount(info, &rank));
    std::vector<std::int64_t> shape(rank);
    runtime_.check(api_.GetDimensions(info, shape.data(), rank));
    if (type != kTypes[static_cast<std::size_t>(tensor.dtype)] ||
        shape != std::vector<std::int64_t>(tensor.shape, tensor.shape + tensor.rank)) {
      throw std::runtime_error(std::string("the graph ") + file_ + " returned " + tensor.name +
                               " in another shape or type than its contract says");
    }
  }

  Runtime runtime_;
  const OrtApi& api_;
  std::string file_;
  OrtEnv* env_ = nullptr;
  OrtMemoryInfo* memory_ = nullptr;
  OrtSession* session_ = nullptr;
};

std::int32_t open_session(const avsbg_session_request* request, void** session, avsbg_text* description,
                          avsbg_text* error) {
  return guarded(error, [&] {
    nlohmann::json fields;
    auto holder = std::make_unique<OrtSessionHolder>(*request, fields);
    std::snprintf(description->data, sizeof description->data, "%s", fields.dump().c_str());
    *session = holder.release();
  });
}

std::int32_t run_session(void* session, const avsbg_tensor* inputs, std::size_t input_count, avsbg_tensor* outputs,
                         std::size_t output_count, avsbg_text* error) {
  return guarded(error, [&] {
    try {
      static_cast<const OrtSessionHolder*>(session)->run(inputs, input_count, outputs, output_count);
    } catch (const std::runtime_error& caught) {
      throw std::runtime_error(std::string("ONNX Runtime failed: ") + caught.what());
    }
  });
}

void release_tensor(void* session, void* handle) { static_cast<const OrtSessionHolder*>(session)->release(handle); }
void close_session(void* session) { delete static_cast<OrtSessionHolder*>(session); }

}  // namespace

extern "C" __attribute__((visibility("default"))) const avsbg_backend_table* avsbg_backend() {
  static const avsbg_backend_table table = {AVSBG_BACKEND_ABI, open_session, run_session, release_tensor, close_session,
                                             /*device_memory=*/nullptr, /*compute_capability=*/nullptr};
  return &table;
}
