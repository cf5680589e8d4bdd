// The operators of the domain avsbg, version 1, as ONNX Runtime sees them. correlation.h says what they compute.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>

#include "correlation.h"
#include "dispatch.h"

namespace avsbg::cpu {
namespace {

// SessionOptions.add_session_config_entry(kPathKey, name), before the library is registered, chooses the path.
constexpr const char* kPathKey = "avsbg.cpu_path";
constexpr unsigned kOldestApi = 20;

using Dimensions = std::vector<std::int64_t>;

std::string text(const Dimensions& shape) {
  std::string result = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) result += (i ? ", " : "") + std::to_string(shape[i]);
  return result + "]";
}

[[noreturn]] void refuse(std::string message) {
  throw Ort::Exception(std::move(message), ORT_INVALID_ARGUMENT);
}

// Runs `body`, turning whatever it throws into a status: no exception may cross into ONNX Runtime.
template <class Body>
OrtStatusPtr guarded(const Body& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const Ort::Exception& error) {
    return Ort::GetApi().CreateStatus(error.GetOrtErrorCode(), error.what());
  } catch (const std::exception& error) {
    return Ort::GetApi().CreateStatus(ORT_FAIL, error.what());
  }
}

DataType data_type(ONNXTensorElementDataType type, const char* name) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT: return DataType::kFloat32;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16: return DataType::kFloat16;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16: return DataType::kBfloat16;
    default: refuse(std::string(name) + " takes float, float16 and bfloat16, not element type " + std::to_string(type));
  }
}

Problem problem_of(const Ort::KernelContext& context, const char* name) {
  const Ort::ConstValue a = context.GetInput(0), b = context.GetInput(1);
  const auto a_info = a.GetTensorTypeAndShapeInfo(), b_info = b.GetTensorTypeAndShapeInfo();
  const Dimensions left = a_info.GetShape(), right = b_info.GetShape();
  if (left.size() != 3 || right.size() != 3 || left[0] != right[0] || left[2] != right[2]) {
    refuse(std::string(name) + ": descriptors must be a [N, P, C] and b [N, Q, C] with equal N and C, not " +
           text(left) + " and " + text(right));
  }
  if (left[1] < 1 || right[1] < 1 || left[2] < 1) {
    refuse(std::string(name) + ": P, Q and C must be at least 1, but a is " + text(left) + " and b " + text(right));
  }
  return {left[0], left[1], right[1], left[2], data_type(a_info.GetElementType(), name),
          a.GetTensorRawData(), b.GetTensorRawData()};
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
  MeanCorrelationKernel(const Ort::ConstKernelInfo&, const Path& path) : path_(path) {}

  OrtStatusPtr ComputeV2(OrtKernelContext* raw_context) const noexcept {
    return guarded([&] {
      const Ort::KernelContext context(raw_context);
      const Problem problem = problem_of(context, "MeanCorrelation");
      float* const mean_a = context.GetOutput(0, {problem.n, problem.p}).GetTensorMutableData<float>();
      float* mean_b = nullptr;
      if (context.GetOutputCount() > 1) {
        if (auto output = context.GetOutput(1, {problem.n, problem.q})) mean_b = output.GetTensorMutableData<float>();
      }
      SessionResources resources(context);
      mean_correlation(path_, problem, mean_a, mean_b, resources.lend());
    });
  }

 private:
  const Path& path_;
};

class CorrelationVolumeKernel {
 public:
  CorrelationVolumeKernel(const Ort::ConstKernelInfo& info, const Path& path) : path_(path) {
    const OrtApi& api = Ort::GetApi();
    std::int64_t value = 0;
    float wrong = 0;
    if (Ort::Status(api.KernelInfoGetAttribute_int64(info, "relu", &value)).IsOK()) {
      if (value != 0 && value != 1) refuse("CorrelationVolume: relu must be 0 or 1, not " + std::to_string(value));
      relu_ = value != 0;
    } else if (Ort::Status(api.KernelInfoGetAttribute_float(info, "relu", &wrong)).IsOK()) {
      // Not the same as an attribute that was left out.
      refuse("CorrelationVolume: relu must be an integer, 0 or 1, not the float " + std::to_string(wrong));
    }
  }

  OrtStatusPtr ComputeV2(OrtKernelContext* raw_context) const noexcept {
    return guarded([&] {
      const Ort::KernelContext context(raw_context);
      const Problem problem = problem_of(context, "CorrelationVolume");
      float* const volume = context.GetOutput(0, {problem.n, problem.p, problem.q}).GetTensorMutableData<float>();
      SessionResources resources(context);
      correlation_volume(path_, problem, relu_, volume, resources.lend());
    });
  }

 private:
  const Path& path_;
  bool relu_ = false;
};

using Dimension = Ort::ShapeInferContext::SymbolicInteger;
using SymbolicShape = Ort::ShapeInferContext::Shape;

bool known(const Dimension& dimension) { return dimension.IsInt() && dimension.AsInt() >= 0; }

// What the wrapper's SetOutputShape does, with -1 for a symbol: later runtimes refuse the wrapper's -2. A dimension with
// neither number nor name leaves the output's shape unsaid, since there is no way to say only a part of it.
void set_output_shape(OrtShapeInferContext* context, std::size_t index, const SymbolicShape& shape) {
  std::vector<std::int64_t> numbers;
  std::vector<const char*> names;
  for (const Dimension& dimension : shape) {
    if (dimension.IsInt() && !known(dimension)) return;
    numbers.push_back(known(dimension) ? dimension.AsInt() : -1);
    names.push_back(known(dimension) ? "" : dimension.AsSym());
  }
  const OrtApi& api = Ort::GetApi();
  OrtTensorTypeAndShapeInfo* raw_info = nullptr;
  Ort::ThrowOnError(api.CreateTensorTypeAndShapeInfo(&raw_info));
  const std::unique_ptr<OrtTensorTypeAndShapeInfo, decltype(api.ReleaseTensorTypeAndShapeInfo)> info(
      raw_info, api.ReleaseTensorTypeAndShapeInfo);
  Ort::ThrowOnError(api.SetTensorElementType(info.get(), ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT));
  Ort::ThrowOnError(api.SetDimensions(info.get(), numbers.data(), numbers.size()));
  Ort::ThrowOnError(api.SetSymbolicDimensions(info.get(), names.data(), names.size()));
  Ort::ThrowOnError(api.ShapeInferContext_SetOutputTypeShape(context, index, info.get()));
}

// Called when a graph is loaded; a dimension is a number, a symbol, or unknown. Shapes that do not fit are left to the
// run to report: ONNX Runtime drops an error from here.
void infer_shapes(OrtShapeInferContext* raw_context, bool volume) {
  const Ort::ShapeInferContext context(&Ort::GetApi(), raw_context);
  const SymbolicShape& a = context.GetInputShape(0);
  const SymbolicShape& b = context.GetInputShape(1);
  if (a.size() != 3 || b.size() != 3) return;
  // Of N either input may know the number where the other has a symbol.
  const Dimension& n = known(a[0]) || !known(b[0]) ? a[0] : b[0];
  if (volume) {
    set_output_shape(raw_context, 0, {n, a[1], b[1]});
  } else {
    set_output_shape(raw_context, 0, {n, a[1]});
    set_output_shape(raw_context, 1, {n, b[1]});
  }
}

// One of these per input type: ONNX Runtime merges operators of one name into one with several types.
template <class Kernel>
class Operator : public Ort::CustomOpBase<Operator<Kernel>, Kernel, true> {
 public:
  static constexpr bool kVolume = std::is_same_v<Kernel, CorrelationVolumeKernel>;

  Operator(unsigned api_version, ONNXTensorElementDataType type, const Path& path) : type_(type), path_(path) {
    // An older ONNX Runtime reads only the fields that it knows.
    OrtCustomOp::version = api_version;
    OrtCustomOp::InferOutputShapeFn = [](const OrtCustomOp*, OrtShapeInferContext* context) -> OrtStatusPtr {
      return guarded([&] { infer_shapes(context, kVolume); });
    };
  }

  OrtStatusPtr CreateKernelV2(const OrtApi&, const OrtKernelInfo* info, void** kernel) const noexcept {
    return guarded([&] { *kernel = new Kernel(Ort::ConstKernelInfo(info), path_); });
  }

  const char* GetName() const { return kName; }
  std::size_t GetInputTypeCount() const { return 2; }
  ONNXTensorElementDataType GetInputType(std::size_t) const { return type_; }
  std::size_t GetOutputTypeCount() const { return kVolume ? 1 : 2; }
  ONNXTensorElementDataType GetOutputType(std::size_t) const { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; }
  OrtCustomOpInputOutputCharacteristic GetOutputCharacteristic(std::size_t index) const {
    return index == 0 ? INPUT_OUTPUT_REQUIRED : INPUT_OUTPUT_OPTIONAL;
  }

 private:
  static constexpr const char* kName = kVolume ? "CorrelationVolume" : "MeanCorrelation";
  ONNXTensorElementDataType type_;
  const Path& path_;
};

// What one registration adds. It must outlive the sessions, of which the library hears nothing.
struct Registration {
  Registration(unsigned api_version, const Path& path) : domain("avsbg") {
    constexpr std::array kTypes{ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
                                ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16};
    for (const auto type : kTypes) {
      add(std::make_unique<Operator<MeanCorrelationKernel>>(api_version, type, path), means);
      add(std::make_unique<Operator<CorrelationVolumeKernel>>(api_version, type, path), volumes);
    }
  }

  template <class Op>
  void add(std::unique_ptr<Op> op, std::vector<std::unique_ptr<Op>>& kept) {
    domain.Add(op.get());
    kept.push_back(std::move(op));
  }

  std::vector<std::unique_ptr<Operator<MeanCorrelationKernel>>> means;
  std::vector<std::unique_ptr<Operator<CorrelationVolumeKernel>>> volumes;
  Ort::CustomOpDomain domain;
};

// One per path that was ever asked for, kept until the process ends.
Registration& registration_for(unsigned api_version, const Path& path) {
  static std::mutex mutex;
  static std::vector<std::pair<const Path*, std::unique_ptr<Registration>>> registrations;
  const std::lock_guard lock(mutex);
  for (const auto& [known, registration] : registrations) {
    if (known == &path) return *registration;
  }
  registrations.emplace_back(&path, std::make_unique<Registration>(api_version, path));
  return *registrations.back().second;
}

void register_operators(OrtSessionOptions* raw_options, unsigned api_version) {
  Ort::UnownedSessionOptions options(raw_options);
  const std::string name = options.GetConfigEntryOrDefault(kPathKey, "auto");
  const Path* const path = find_path(name);
  if (path == nullptr) {
    refuse(std::string("avsbg: ") + kPathKey + " is \"" + name +
           "\", which this CPU or this build cannot run; it can run: auto, " + available_path_names());
  }
  Ort::ThrowOnError(
      Ort::GetApi().AddCustomOpDomain(raw_options, registration_for(api_version, *path).domain));
}

}  // namespace
}  // namespace avsbg::cpu

extern "C" {

// What ONNX Runtime calls when the library is registered. Headers of a later API than the runtime's are fine: its
// version says which part of them it knows.
__attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                                                    const OrtApiBase* base) {
  const char* const version = base->GetVersionString();
  const unsigned minor = std::string(version).rfind("1.", 0) == 0 ? std::strtoul(version + 2, nullptr, 10)
                                                                  : ORT_API_VERSION;
  const unsigned api_version = std::min<unsigned>(minor, ORT_API_VERSION);
  const OrtApi* const api = base->GetApi(api_version);
  if (api_version < avsbg::cpu::kOldestApi || api == nullptr) {
    const std::string message = std::string("avsbg: the operator library needs ONNX Runtime 1.20 or later, not ") + version;
    return base->GetApi(1)->CreateStatus(ORT_FAIL, message.c_str());
  }
  Ort::InitApi(api);
  return avsbg::cpu::guarded([&] { avsbg::cpu::register_operators(options, api_version); });
}

// The paths that this CPU can run, best first, separated by ", ": the first is what "auto" takes.
__attribute__((visibility("default"))) const char* avsbg_cpu_paths() {
  static const std::string names = avsbg::cpu::available_path_names();
  return names.c_str();
}

}  // extern "C"
