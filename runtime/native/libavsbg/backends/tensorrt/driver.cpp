#include "backends/tensorrt/driver.h"

#include <dlfcn.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <stdexcept>

namespace avsbg_tensorrt {
namespace {

constexpr const char* kDriverLibrary = "libcuda.so.1";

int read_attribute(const Driver& driver, CUdevice device, CUdevice_attribute which) {
  int value = 0;
  driver.check(driver.cuDeviceGetAttribute(&value, which, device), "cuDeviceGetAttribute");
  return value;
}

int read_compute_capability(const Driver& driver, CUdevice device) {
  return 10 * read_attribute(driver, device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) +
         read_attribute(driver, device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
}

}  // namespace

Driver::Driver() {
  // It stays loaded, as TensorRT's use of it does.
  void* const library = dlopen(kDriverLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    throw std::runtime_error(std::string("CUDA's driver cannot be loaded: ") + dlerror() +
                             ". It was looked for where the loader looks. Install NVIDIA's driver.");
  }
#define AVSBG_NAME_OF(name) #name
#define AVSBG_FIND(name)                                                                            \
  name = reinterpret_cast<decltype(&::name)>(dlsym(library, AVSBG_NAME_OF(name)));                  \
  if (name == nullptr) {                                                                            \
    throw std::runtime_error(std::string(kDriverLibrary) + " has no function " + AVSBG_NAME_OF(name) + \
                             ": the driver is too old. TensorRT 10 needs one for CUDA 12 or later."); \
  }
  AVSBG_DRIVER_FUNCTIONS(AVSBG_FIND)
#undef AVSBG_FIND
#undef AVSBG_NAME_OF
  check(cuInit(0), "cuInit");
}

void Driver::check(CUresult result, const char* call) const {
  if (result == CUDA_SUCCESS) return;
  const char *name = nullptr, *text = nullptr;
  cuGetErrorName(result, &name);
  cuGetErrorString(result, &text);
  throw std::runtime_error(std::string("CUDA's ") + call + " failed: " + (name == nullptr ? "error " + std::to_string(result) : name) +
                           (text == nullptr ? "" : std::string(", ") + text));
}

Device::Device(int index) : index_(index) {
  int count = 0;
  driver_.check(driver_.cuDeviceGetCount(&count), "cuDeviceGetCount");
  if (index < 0 || index >= count) {
    throw std::runtime_error("there is no GPU number " + std::to_string(index) + "; this machine has " + std::to_string(count));
  }
  driver_.check(driver_.cuDeviceGet(&device_, index), "cuDeviceGet");
  driver_.check(driver_.cuDevicePrimaryCtxRetain(&context_, device_), "cuDevicePrimaryCtxRetain");
}

Device::~Device() { driver_.cuDevicePrimaryCtxRelease(device_); }

std::string Device::name() const {
  char text[256] = {};
  driver_.check(driver_.cuDeviceGetName(text, sizeof text - 1, device_), "cuDeviceGetName");
  return text;
}

int Device::compute_capability() const { return read_compute_capability(driver_, device_); }

int Device::multiprocessors() const {
  return read_attribute(driver_, device_, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
}

int Device::memory_gib() const {
  std::size_t bytes = 0;
  driver_.check(driver_.cuDeviceTotalMem(&bytes, device_), "cuDeviceTotalMem");
  std::size_t gib = 1;
  while ((gib << 30) < bytes) gib *= 2;
  return static_cast<int>(gib);
}

std::int32_t find_compute_capability(std::int32_t index) {
  try {
    const Driver driver;
    CUdevice device = 0;
    return driver.cuDeviceGet(&device, index) == CUDA_SUCCESS ? read_compute_capability(driver, device) : 0;
  } catch (const std::runtime_error&) {  // no GPU: opening an engine says so
    return 0;
  }
}

Current::Current(const Device& device) : driver_(device.driver()) {
  driver_.check(driver_.cuCtxPushCurrent(device.context_), "cuCtxPushCurrent");
}

Current::~Current() {
  CUcontext popped = nullptr;
  driver_.cuCtxPopCurrent(&popped);
}

std::string module_name() {
  if (access("/etc/nv_tegra_release", R_OK) != 0) return "";
  std::ifstream file("/proc/device-tree/model");
  const std::string text(std::istreambuf_iterator<char>(file), {});
  return text.substr(0, text.find('\0'));
}

}  // namespace avsbg_tensorrt
