// The operators of the domain avsbg on a GPU, as ONNX Runtime sees them: libavsbg_cuda on the session's stream.
#include <dlfcn.h>

#include <mutex>

#include "avsbg_cuda.h"
#include "operators.h"

// The execution provider of the kernels: another value for a build that is tested on the emulated CUDA.
#ifndef AVSBG_CUDA_PROVIDER
#define AVSBG_CUDA_PROVIDER "CUDAExecutionProvider"
#endif

namespace avsbg {
namespace cuda {
namespace {

// SessionOptions.add_session_config_entry(kTf32Key, "1") lets fp32 descriptors be rounded to tf32.
constexpr const char* kTf32Key = "avsbg.cuda_tf32";

// The functions of a libavsbg_cuda. Opened, not linked: it is there only where a CUDA compiler was.
class Library {
 public:
  Library(const std::string& path, bool tf32) : path(path), tf32(tf32) {
    void* const handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) refuse("avsbg: the CUDA kernels cannot be loaded: " + std::string(dlerror()));
    decltype(&avsbg_cuda_abi_version) abi_version = nullptr;
    find(handle, "avsbg_cuda_abi_version", abi_version);
    if (abi_version() != AVSBG_CUDA_ABI_VERSION) {
      refuse("avsbg: " + path + " has version " + std::to_string(abi_version()) + " of its interface, and " +
             std::to_string(AVSBG_CUDA_ABI_VERSION) + " is needed");
    }
    find(handle, "avsbg_cuda_last_error", last_error);
    find(handle, "avsbg_cuda_workspace_size", workspace_size);
    find(handle, "avsbg_cuda_mean_correlation", mean_correlation);
    find(handle, "avsbg_cuda_correlation_volume", correlation_volume);
  }

  void check(avsbg_status status, const char* name) const {
    if (status != AVSBG_SUCCESS) refuse(std::string(name) + ": the CUDA kernels cannot compute this: " + last_error());
  }

  const std::string path;
  const bool tf32;
  decltype(&avsbg_cuda_last_error) last_error = nullptr;
  decltype(&avsbg_cuda_workspace_size) workspace_size = nullptr;
  decltype(&avsbg_cuda_mean_correlation) mean_correlation = nullptr;
  decltype(&avsbg_cuda_correlation_volume) correlation_volume = nullptr;

 private:
  template <class Function>
  void find(void* handle, const char* name, Function& function) const {
    function = reinterpret_cast<Function>(dlsym(handle, name));
    if (function == nullptr) refuse("avsbg: " + path + " has no function " + name);
  }
};

avsbg_problem problem_of(const Descriptors& given, bool tf32, const char* name) {
  std::int32_t dtype = 0;
  switch (given.type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT: dtype = tf32 ? AVSBG_TF32 : AVSBG_FLOAT32; break;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16: dtype = AVSBG_FLOAT16; break;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16: dtype = AVSBG_BFLOAT16; break;
    default: refuse_type(given.type, name);
  }
  return {given.n, given.p, given.q, given.c, dtype};
}

// Memory where the inputs are, from the session's allocator, which keeps it between runs. It is returned when the
// kernel has been enqueued, not when it has run: the allocator is told the stream, so that only what follows on it may
// have the memory meanwhile.
class Workspace {
 public:
  Workspace(const Ort::KernelContext& context, std::size_t bytes, void* stream) {
    if (bytes == 0) return;
    const OrtMemoryInfo* const place = context.GetInput(0).GetTensorMemoryInfo();
    allocator_ = context.GetAllocator(*place);
    if (stream == nullptr) {
      memory_ = allocator_->Alloc(allocator_, bytes);  // ONNX Runtime asks the stream below without looking for it
    } else {
      OrtKernelContext* const raw_context = context.GetOrtKernelContext();
      Ort::ThrowOnError(Ort::GetApi().KernelContext_GetScratchBuffer(raw_context, place, bytes, &memory_));
    }
    if (memory_ == nullptr) {
      throw Ort::Exception("cannot allocate a workspace of " + std::to_string(bytes) + " bytes", ORT_FAIL);
    }
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace() {
    if (memory_ != nullptr) allocator_->Free(allocator_, memory_);
    if (allocator_ != nullptr) Ort::GetApi().ReleaseAllocator(allocator_);
  }

  void* memory() const { return memory_; }

 private:
  OrtAllocator* allocator_ = nullptr;
  void* memory_ = nullptr;
};

class MeanCorrelationKernel {
 public:
  using Target = Library;
  static constexpr bool kVolume = false;
  static constexpr const char* kProvider = AVSBG_CUDA_PROVIDER;

  MeanCorrelationKernel(const Ort::ConstKernelInfo&, const Library& library) : library_(library) {}

  OrtStatusPtr ComputeV2(OrtKernelContext* raw_context) const noexcept {
    return guarded([&] {
      constexpr const char* kName = "MeanCorrelation";
      const Ort::KernelContext context(raw_context);
      const Descriptors given = read_descriptors(context, kName);
      const Means means(context, given);
      const avsbg_problem problem = problem_of(given, library_.tf32, kName);
      std::size_t bytes = 0;
      library_.check(library_.workspace_size(&problem, means.b != nullptr, &bytes), kName);
      void* const stream = context.GetGPUComputeStream();
      const Workspace workspace(context, bytes, stream);
      library_.check(library_.mean_correlation(&problem, nullptr, given.a, given.b, means.a, means.b,
                                               workspace.memory(), bytes, stream),
                     kName);
    });
  }

 private:
  const Library& library_;
};

class CorrelationVolumeKernel {
 public:
  using Target = Library;
  static constexpr bool kVolume = true;
  static constexpr const char* kProvider = AVSBG_CUDA_PROVIDER;

  CorrelationVolumeKernel(const Ort::ConstKernelInfo& info, const Library& library)
      : library_(library), relu_(read_relu(info)) {}

  OrtStatusPtr ComputeV2(OrtKernelContext* raw_context) const noexcept {
    return guarded([&] {
      constexpr const char* kName = "CorrelationVolume";
      const Ort::KernelContext context(raw_context);
      const Descriptors given = read_descriptors(context, kName);
      float* const volume = context.GetOutput(0, {given.n, given.p, given.q}).GetTensorMutableData<float>();
      const avsbg_problem problem = problem_of(given, library_.tf32, kName);
      library_.check(library_.correlation_volume(&problem, nullptr, given.a, given.b, volume, relu_,
                                                 context.GetGPUComputeStream()),
                     kName);
    });
  }

 private:
  const Library& library_;
  bool relu_;
};

struct CudaRegistration {
  CudaRegistration(unsigned api_version, const std::string& path, bool tf32)
      : library(path, tf32), operators(api_version, library) {}
  Library library;
  Registration<MeanCorrelationKernel, CorrelationVolumeKernel> operators;
};

// One per library and precision that was ever asked for, kept until the process ends.
CudaRegistration& registration_for(unsigned api_version, const std::string& path, bool tf32) {
  static std::mutex mutex;
  static std::vector<std::unique_ptr<CudaRegistration>> registrations;
  const std::lock_guard lock(mutex);
  for (const auto& known : registrations) {
    if (known->library.path == path && known->library.tf32 == tf32) return *known;
  }
  registrations.push_back(std::make_unique<CudaRegistration>(api_version, path, tf32));
  return *registrations.back();
}

}  // namespace
}  // namespace cuda

void register_cuda_operators(Ort::UnownedSessionOptions& options, unsigned api_version, const std::string& library) {
  const bool tf32 = options.GetConfigEntryOrDefault(cuda::kTf32Key, "0") == "1";
  cuda::CudaRegistration& registration = cuda::registration_for(api_version, library, tf32);
  Ort::ThrowOnError(Ort::GetApi().AddCustomOpDomain(options, registration.operators.domain()));
}

}  // namespace avsbg
