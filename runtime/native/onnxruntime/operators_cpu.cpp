// The operators of the domain avsbg on the processor, as ONNX Runtime sees them. correlation.h says what they compute.
#include "operators.h"

#include <functional>
#include <mutex>

#include "correlation.h"
#include "dispatch.h"

namespace avsbg {
namespace cpu {
namespace {

// SessionOptions.add_session_config_entry(kPathKey, name), before the library is registered, chooses the path.
constexpr const char* kPathKey = "avsbg.cpu_path";

DataType data_type(ONNXTensorElementDataType type, const char* name) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT: return DataType::kFloat32;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16: return DataType::kFloat16;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16: return DataType::kBfloat16;
    default: refuse_type(type, name);
  }
}

Problem problem_of(const Descriptors& given, const char* name) {
  return {given.n, given.p, given.q, given.c, data_type(given.type, name), given.a, given.b};
}

// The session's threads, and memory from its allocator, which keeps it between runs.
class SessionResources {
 public:
  explicit SessionResources(const Ort::KernelContext& context) : context_(context) {
    const auto info = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    allocator_ = context.GetAllocator(*static_cast<const OrtMemoryInfo*>(info));
  }
  SessionResources(const SessionResources&) = delete;
  SessionResources& operator=(const SessionResources&) = delete;
  ~SessionResources() {
    if (memory_ != nullptr) allocator_->Free(allocator_, memory_);
    Ort::GetApi().ReleaseAllocator(allocator_);
  }

  Resources lend() {
    return {[this](std::size_t count, const Task& task) { parallel_for(count, task); },
            [this](std::size_t bytes) { return allocate(bytes); }};
  }

 private:
  using Task = std::function<void(std::size_t)>;

  void parallel_for(std::size_t count, const Task& task) {
    const auto run = [](void* data, std::size_t index) { (*static_cast<const Task*>(data))(index); };
    context_.ParallelFor(run, count, 0, const_cast<Task*>(&task));
  }

  void* allocate(std::size_t bytes) {
    constexpr std::uintptr_t kAlignment = 64;
    memory_ = allocator_->Alloc(allocator_, bytes + kAlignment);
    if (memory_ == nullptr) {
      throw Ort::Exception("cannot allocate a workspace of " + std::to_string(bytes) + " bytes", ORT_FAIL);
    }
    return reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(memory_) + kAlignment - 1) & ~(kAlignment - 1));
  }

  const Ort::KernelContext& context_;
  OrtAllocator* allocator_ = nullptr;
  void* memory_ = nullptr;
};

class MeanCorrelationKernel {
 public:
  using Target = Path;
  static constexpr bool kVolume = false;
  static constexpr const char* kProvider = nullptr;  // the CPU's

  MeanCorrelationKernel(const Ort::ConstKernelInfo&, const Path& path) : path_(path) {}

  OrtStatusPtr ComputeV2(OrtKernelContext* raw_context) const noexcept {
    return guarded([&] {
      const Ort::KernelContext context(raw_context);
      const Descriptors given = read_descriptors(context, "MeanCorrelation");
      const Means means(context, given);
      SessionResources resources(context);
      mean_correlation(path_, problem_of(given, "MeanCorrelation"), means.a, means.b, resources.lend());
    });
  }

 private:
  const Path& path_;
};

class CorrelationVolumeKernel {
 public:
  using Target = Path;
  static constexpr bool kVolume = true;
  static constexpr const char* kProvider = nullptr;

  CorrelationVolumeKernel(const Ort::ConstKernelInfo& info, const Path& path) : path_(path), relu_(read_relu(info)) {}

  OrtStatusPtr ComputeV2(OrtKernelContext* raw_context) const noexcept {
    return guarded([&] {
      const Ort::KernelContext context(raw_context);
      const Descriptors given = read_descriptors(context, "CorrelationVolume");
      float* const volume = context.GetOutput(0, {given.n, given.p, given.q}).GetTensorMutableData<float>();
      SessionResources resources(context);
      correlation_volume(path_, problem_of(given, "CorrelationVolume"), relu_, volume, resources.lend());
    });
  }

 private:
  const Path& path_;
  bool relu_;
};

using CpuRegistration = Registration<MeanCorrelationKernel, CorrelationVolumeKernel>;

// One per path that was ever asked for, kept until the process ends.
CpuRegistration& registration_for(unsigned api_version, const Path& path) {
  static std::mutex mutex;
  static std::vector<std::pair<const Path*, std::unique_ptr<CpuRegistration>>> registrations;
  const std::lock_guard lock(mutex);
  for (const auto& [known, registration] : registrations) {
    if (known == &path) return *registration;
  }
  registrations.emplace_back(&path, std::make_unique<CpuRegistration>(api_version, path));
  return *registrations.back().second;
}

}  // namespace
}  // namespace cpu

void register_cpu_operators(Ort::UnownedSessionOptions& options, unsigned api_version) {
  const std::string name = options.GetConfigEntryOrDefault(cpu::kPathKey, "auto");
  const cpu::Path* const path = cpu::find_path(name);
  if (path == nullptr) {
    refuse(std::string("avsbg: ") + cpu::kPathKey + " is \"" + name +
           "\", which this CPU or this build cannot run; it can run: auto, " + cpu::available_path_names());
  }
  Ort::ThrowOnError(Ort::GetApi().AddCustomOpDomain(options, cpu::registration_for(api_version, *path).domain()));
}

}  // namespace avsbg
