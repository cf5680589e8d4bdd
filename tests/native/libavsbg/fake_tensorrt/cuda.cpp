// Stands for CUDA's driver, with its rules: a call without a current context, memory that is not the driver's, and work
// that a capture forbids are told and end the process. What a stream is given runs when it is waited for, and not before.
#include <cuda.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "fake.h"

struct CUstream_st {
  Work pending, captured;
  bool is_capturing = false;
};
struct CUgraph_st {
  Work work;
};
struct CUgraphExec_st {
  Work work;
};

namespace {

std::recursive_mutex lock;
std::map<std::uintptr_t, std::size_t> device_memory, host_memory;
bool initialized = false;
int retained = 0, streams = 0, graphs = 0, captures = 0, launches = 0;
thread_local std::vector<CUcontext> current;
const CUcontext kContext = reinterpret_cast<CUcontext>(0x16);

void require_context(const char* call) {
  if (current.empty() || retained < 1) fake_violation("%s without a current context", call);
}

void check_range(const std::map<std::uintptr_t, std::size_t>& memory, const void* pointer, std::size_t bytes, const char* kind) {
  const std::lock_guard<std::recursive_mutex> hold(lock);
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  auto found = memory.upper_bound(address);
  if (found == memory.begin() || address + bytes > (--found)->first + found->second) {
    fake_violation("%s memory at %p is not there, or smaller than %zu bytes", kind, pointer, bytes);
  }
}

CUresult allocate(std::map<std::uintptr_t, std::size_t>& memory, std::size_t bytes, void** pointer) {
  const std::lock_guard<std::recursive_mutex> hold(lock);
  *pointer = std::malloc(bytes);
  std::memset(*pointer, 0xff, bytes);  // NaN
  memory[reinterpret_cast<std::uintptr_t>(*pointer)] = bytes;
  return CUDA_SUCCESS;
}

CUresult give_back(std::map<std::uintptr_t, std::size_t>& memory, void* pointer) {
  const std::lock_guard<std::recursive_mutex> hold(lock);
  if (memory.erase(reinterpret_cast<std::uintptr_t>(pointer)) != 1) fake_violation("%p was not allocated", pointer);
  std::free(pointer);
  return CUDA_SUCCESS;
}

struct Report {
  ~Report() {
    if (!device_memory.empty() || !host_memory.empty() || retained != 0 || streams != 0 || graphs != 0) {
      fake_violation("left behind: %zu and %zu blocks of memory, %d contexts, %d streams, %d graphs", device_memory.size(),
                     host_memory.size(), retained, streams, graphs);
    }
    const char* const path = std::getenv("FAKE_CUDA_REPORT");
    if (path == nullptr) return;
    std::FILE* const file = std::fopen(path, "w");
    std::fprintf(file, "%d %d\n", captures, launches);
    std::fclose(file);
  }
} report;

}  // namespace

void fake_check_device(const void* pointer, std::size_t bytes) { check_range(device_memory, pointer, bytes, "device"); }

void fake_enqueue(CUstream stream, std::function<void()> work) {
  require_context("work for a stream");
  (stream->is_capturing ? stream->captured : stream->pending).push_back(std::move(work));
}

bool fake_is_capturing(CUstream stream) { return stream->is_capturing; }

extern "C" {
CUresult cuInit(unsigned) {
  initialized = true;
  return CUDA_SUCCESS;
}
CUresult cuGetErrorName(CUresult, const char** text) { return *text = "CUDA_ERROR_OF_THE_FAKE", CUDA_SUCCESS; }
CUresult cuGetErrorString(CUresult, const char** text) { return *text = "an error", CUDA_SUCCESS; }
CUresult cuDeviceGetCount(int* count) {
  if (!initialized) fake_violation("cuDeviceGetCount before %s", "cuInit");
  *count = 1;
  return CUDA_SUCCESS;
}
CUresult cuDeviceGet(CUdevice* device, int number) {
  return *device = 0, number == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}
CUresult cuDeviceGetName(char* name, int length, CUdevice) { return std::snprintf(name, length, "Orin"), CUDA_SUCCESS; }
CUresult cuDeviceTotalMem(size_t* bytes, CUdevice) { return *bytes = std::size_t{7} << 30, CUDA_SUCCESS; }
CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute which, CUdevice) {
  *value = which == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT           ? 8
           : which == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR     ? 8
           : which == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR     ? 7
                                                                       : -1;
  return *value < 0 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice) {
  const std::lock_guard<std::recursive_mutex> hold(lock);
  ++retained;
  return *context = kContext, CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease(CUdevice) {
  const std::lock_guard<std::recursive_mutex> hold(lock);
  return --retained, CUDA_SUCCESS;
}
CUresult cuCtxPushCurrent(CUcontext context) {
  if (context != kContext) fake_violation("no context: %p", static_cast<void*>(context));
  return current.push_back(context), CUDA_SUCCESS;
}
CUresult cuCtxPopCurrent(CUcontext* context) {
  require_context("cuCtxPopCurrent");
  *context = current.back();
  return current.pop_back(), CUDA_SUCCESS;
}
CUresult cuMemAlloc(CUdeviceptr* memory, size_t bytes) {
  require_context("cuMemAlloc");
  return allocate(device_memory, bytes, reinterpret_cast<void**>(memory));
}
CUresult cuMemFree(CUdeviceptr memory) { return give_back(device_memory, reinterpret_cast<void*>(memory)); }
CUresult cuMemHostAlloc(void** memory, size_t bytes, unsigned) {
  require_context("cuMemHostAlloc");
  return allocate(host_memory, bytes, memory);
}
CUresult cuMemFreeHost(void* memory) { return give_back(host_memory, memory); }
CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
  fake_enqueue(stream, [=] {
    check_range(host_memory, from, bytes, "pinned");
    fake_check_device(reinterpret_cast<void*>(to), bytes);
    std::memcpy(reinterpret_cast<void*>(to), from, bytes);
  });
  return CUDA_SUCCESS;
}
CUresult cuMemcpyDtoHAsync(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
  fake_enqueue(stream, [=] {
    check_range(host_memory, to, bytes, "pinned");
    fake_check_device(reinterpret_cast<void*>(from), bytes);
    std::memcpy(to, reinterpret_cast<void*>(from), bytes);
  });
  return CUDA_SUCCESS;
}
CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  fake_enqueue(stream, [=] {
    fake_check_device(reinterpret_cast<void*>(to), bytes);
    fake_check_device(reinterpret_cast<void*>(from), bytes);
    std::memcpy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes);
  });
  return CUDA_SUCCESS;
}
CUresult cuStreamCreate(CUstream* stream, unsigned) {
  require_context("cuStreamCreate");
  const std::lock_guard<std::recursive_mutex> hold(lock);
  ++streams;
  return *stream = new CUstream_st, CUDA_SUCCESS;
}
CUresult cuStreamSynchronize(CUstream stream) {
  require_context("cuStreamSynchronize");
  if (stream->is_capturing) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  Work work;
  work.swap(stream->pending);
  for (const auto& one : work) one();
  return CUDA_SUCCESS;
}
CUresult cuStreamDestroy(CUstream stream) {
  const std::lock_guard<std::recursive_mutex> hold(lock);
  --streams;
  delete stream;
  return CUDA_SUCCESS;
}
CUresult cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode) {
  require_context("cuStreamBeginCapture");
  stream->is_capturing = true;
  return stream->captured.clear(), CUDA_SUCCESS;
}
CUresult cuStreamEndCapture(CUstream stream, CUgraph* graph) {
  if (!stream->is_capturing) return CUDA_ERROR_ILLEGAL_STATE;
  stream->is_capturing = false;
  if (std::getenv("FAKE_CUDA_NO_CAPTURE") != nullptr) return *graph = nullptr, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  const std::lock_guard<std::recursive_mutex> hold(lock);
  ++graphs;
  ++captures;
  return *graph = new CUgraph_st{stream->captured}, CUDA_SUCCESS;
}
CUresult cuGraphInstantiateWithFlags(CUgraphExec* executable, CUgraph graph, unsigned long long) {
  const std::lock_guard<std::recursive_mutex> hold(lock);
  ++graphs;
  return *executable = new CUgraphExec_st{graph->work}, CUDA_SUCCESS;
}
CUresult cuGraphLaunch(CUgraphExec executable, CUstream stream) {
  require_context("cuGraphLaunch");
  const std::lock_guard<std::recursive_mutex> hold(lock);
  ++launches;
  stream->pending.insert(stream->pending.end(), executable->work.begin(), executable->work.end());
  return CUDA_SUCCESS;
}
CUresult cuGraphExecDestroy(CUgraphExec executable) {
  const std::lock_guard<std::recursive_mutex> hold(lock);
  --graphs;
  return delete executable, CUDA_SUCCESS;
}
CUresult cuGraphDestroy(CUgraph graph) {
  const std::lock_guard<std::recursive_mutex> hold(lock);
  --graphs;
  return delete graph, CUDA_SUCCESS;
}
}
