// CUDA's driver, libcuda.so.1, opened at run time, and one GPU of it, used through its primary context, which TensorRT
// and the plugin share. Functions that can fail throw a std::runtime_error that names the call.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace avsbg_tensorrt {

// cuda.h makes some of these names macros for names with a version: the library has those.
#define AVSBG_DRIVER_FUNCTIONS(USE)                                                                               \
  USE(cuInit) USE(cuGetErrorName) USE(cuGetErrorString) USE(cuDeviceGetCount) USE(cuDeviceGet)                    \
  USE(cuDeviceGetName) USE(cuDeviceGetAttribute) USE(cuDeviceTotalMem) USE(cuDevicePrimaryCtxRetain)              \
  USE(cuDevicePrimaryCtxRelease) USE(cuCtxPushCurrent) USE(cuCtxPopCurrent) USE(cuMemAlloc) USE(cuMemFree)        \
  USE(cuMemHostAlloc) USE(cuMemFreeHost) USE(cuMemcpyHtoDAsync) USE(cuMemcpyDtoHAsync) USE(cuMemcpyDtoDAsync)     \
  USE(cuStreamCreate) USE(cuStreamSynchronize) USE(cuStreamDestroy) USE(cuStreamBeginCapture)                     \
  USE(cuStreamEndCapture) USE(cuGraphInstantiateWithFlags) USE(cuGraphLaunch) USE(cuGraphExecDestroy)             \
  USE(cuGraphDestroy)

struct Driver {
  Driver();

#define AVSBG_DECLARE(name) decltype(&::name) name = nullptr;
  AVSBG_DRIVER_FUNCTIONS(AVSBG_DECLARE)
#undef AVSBG_DECLARE

  void check(CUresult result, const char* call) const;
};

class Device {
 public:
  explicit Device(int index);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const Driver& driver() const { return driver_; }
  int index() const { return index_; }

  std::string name() const;
  int compute_capability() const;  // 87 is 8.7
  int multiprocessors() const;
  int memory_gib() const;  // that it is sold with: up to a power of two

 private:
  friend class Current;
  Driver driver_;
  int index_;
  CUdevice device_ = 0;
  CUcontext context_ = nullptr;
};

// The compute capability of a GPU in tenths; 0 where there is no driver, or no GPU of that number.
std::int32_t find_compute_capability(std::int32_t index);

// Makes a device's context the calling thread's, and puts back the one before it.
class Current {
 public:
  explicit Current(const Device& device);
  ~Current();
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

 private:
  const Driver& driver_;
};

// The name of a Jetson in the device tree; "" on other machines.
std::string module_name();

}  // namespace avsbg_tensorrt
