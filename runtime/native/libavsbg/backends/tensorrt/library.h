// TensorRT's library, opened at run time, and its messages.
#pragma once

#include <NvInferRuntime.h>

#include <mutex>
#include <string>
#include <vector>

namespace avsbg_tensorrt {

// The product that this is compiled for: the headers of TensorRT for RTX, which declare the same classes, say so.
#ifdef TRT_MAJOR_RTX
constexpr const char *kBackend = "tensorrt-rtx", *kProduct = "TensorRT for RTX", *kLibrary = "libtensorrt_rtx.so.";
constexpr const char* kOwnName = "libtensorrt_rtx.so";
constexpr std::int32_t kOldest = 10000;
#else
constexpr const char *kBackend = "tensorrt", *kProduct = "TensorRT", *kLibrary = "libnvinfer.so.";
constexpr const char* kOwnName = nullptr;
constexpr std::int32_t kOldest = 100300;  // the first whose plugins (IPluginV3) ours are; JetPack 6 has it
#endif

// TensorRT's messages: keeps the latest errors, for the error that follows them.
class Logger : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char* message) noexcept override;
  std::string take();  // what was kept; "it gives no reason" if nothing was

 private:
  std::mutex lock_;
  std::vector<std::string> errors_;
};

// TensorRT's library, opened at run time. It stays loaded: plugins register with it for the life of the process.
struct Library {
  explicit Library(const char* file);

  void* (*create_runtime)(void* logger, std::int32_t version) noexcept = nullptr;
  nvinfer1::IPluginRegistry* (*plugin_registry)() noexcept = nullptr;
  std::string name;
  std::int32_t version = 0;  // as NV_TENSORRT_VERSION counts
};

// As 10.13.3, of a number that counts as NV_TENSORRT_VERSION does.
std::string version_text(std::int32_t version);

}  // namespace avsbg_tensorrt
