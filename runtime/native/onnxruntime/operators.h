// The common part of the operators of the domain avsbg, whatever computes them: names, types, shapes, registration.
#pragma once

#include <array>
#include <exception>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>

namespace avsbg {

// Registers the operators for a processor or for a GPU with the options of a session; throws what `guarded` catches.
void register_cpu_operators(Ort::UnownedSessionOptions& options, unsigned api_version);
void register_cuda_operators(Ort::UnownedSessionOptions& options, unsigned api_version, const std::string& library);

using Dimensions = std::vector<std::int64_t>;

inline std::string text(const Dimensions& shape) {
  std::string result = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) result += (i ? ", " : "") + std::to_string(shape[i]);
  return result + "]";
}

[[noreturn]] inline void refuse(std::string message) {
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

[[noreturn]] inline void refuse_type(ONNXTensorElementDataType type, const char* name) {
  refuse(std::string(name) + " takes float, float16 and bfloat16, not element type " + std::to_string(type));
}

// The inputs of a node: a [n, p, c] and b [n, q, c].
struct Descriptors {
  std::int64_t n, p, q, c;
  ONNXTensorElementDataType type;
  const void* a;
  const void* b;
};

inline Descriptors read_descriptors(const Ort::KernelContext& context, const char* name) {
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
  return {left[0], left[1], right[1], left[2], a_info.GetElementType(),
          a.GetTensorRawData(), b.GetTensorRawData()};
}

// The outputs of a MeanCorrelation node; mean_b is nullptr where it is left out.
struct Means {
  Means(const Ort::KernelContext& context, const Descriptors& given)
      : a(context.GetOutput(0, {given.n, given.p}).GetTensorMutableData<float>()) {
    if (context.GetOutputCount() < 2) return;
    if (auto output = context.GetOutput(1, {given.n, given.q})) b = output.GetTensorMutableData<float>();
  }
  float* a;
  float* b = nullptr;
};

// The attribute relu of a CorrelationVolume node.
inline bool read_relu(const Ort::ConstKernelInfo& info) {
  const OrtApi& api = Ort::GetApi();
  std::int64_t value = 0;
  float wrong = 0;
  if (Ort::Status(api.KernelInfoGetAttribute_int64(info, "relu", &value)).IsOK()) {
    if (value != 0 && value != 1) refuse("CorrelationVolume: relu must be 0 or 1, not " + std::to_string(value));
    return value != 0;
  }
  if (Ort::Status(api.KernelInfoGetAttribute_float(info, "relu", &wrong)).IsOK()) {
    // Not the same as an attribute that was left out.
    refuse("CorrelationVolume: relu must be an integer, 0 or 1, not the float " + std::to_string(wrong));
  }
  return false;
}

using Dimension = Ort::ShapeInferContext::SymbolicInteger;
using SymbolicShape = Ort::ShapeInferContext::Shape;

inline bool known(const Dimension& dimension) { return dimension.IsInt() && dimension.AsInt() >= 0; }

// As the wrapper's SetOutputShape, with -1 for a symbol: later runtimes refuse the wrapper's -2. A dimension
// with neither number nor name leaves the output's shape unsaid, since there is no way to say only a part of it.
inline void set_output_shape(OrtShapeInferContext* context, std::size_t index, const SymbolicShape& shape) {
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
inline void infer_shapes(OrtShapeInferContext* raw_context, bool volume) {
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

// One of these per input type: ONNX Runtime merges operators of one name into one with several types. A `Kernel` is
// made of the node and of a `Kernel::Target`, which is what computes; it says kVolume and kProvider.
template <class Kernel>
class Operator : public Ort::CustomOpBase<Operator<Kernel>, Kernel, true> {
 public:
  using Target = typename Kernel::Target;

  Operator(unsigned api_version, ONNXTensorElementDataType type, const Target& target) : type_(type), target_(target) {
    // An older ONNX Runtime reads only the fields that it knows.
    OrtCustomOp::version = api_version;
    OrtCustomOp::InferOutputShapeFn = [](const OrtCustomOp*, OrtShapeInferContext* context) -> OrtStatusPtr {
      return guarded([&] { infer_shapes(context, Kernel::kVolume); });
    };
  }

  OrtStatusPtr CreateKernelV2(const OrtApi&, const OrtKernelInfo* info, void** kernel) const noexcept {
    return guarded([&] { *kernel = new Kernel(Ort::ConstKernelInfo(info), target_); });
  }

  const char* GetName() const { return Kernel::kVolume ? "CorrelationVolume" : "MeanCorrelation"; }
  const char* GetExecutionProviderType() const { return Kernel::kProvider; }
  std::size_t GetInputTypeCount() const { return 2; }
  ONNXTensorElementDataType GetInputType(std::size_t) const { return type_; }
  std::size_t GetOutputTypeCount() const { return Kernel::kVolume ? 1 : 2; }
  ONNXTensorElementDataType GetOutputType(std::size_t) const { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; }
  OrtCustomOpInputOutputCharacteristic GetOutputCharacteristic(std::size_t index) const {
    return index == 0 ? INPUT_OUTPUT_REQUIRED : INPUT_OUTPUT_OPTIONAL;
  }

 private:
  ONNXTensorElementDataType type_;
  const Target& target_;
};

// The operators of one registration. They must outlive the sessions, of which the library learns nothing.
template <class MeanKernel, class VolumeKernel>
class Registration {
 public:
  Registration(unsigned api_version, const typename MeanKernel::Target& target) : domain_("avsbg") {
    constexpr std::array kTypes{ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
                                ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16};
    for (const auto type : kTypes) {
      add(std::make_unique<Operator<MeanKernel>>(api_version, type, target), means_);
      add(std::make_unique<Operator<VolumeKernel>>(api_version, type, target), volumes_);
    }
  }

  OrtCustomOpDomain* domain() { return domain_; }

 private:
  template <class Op>
  void add(std::unique_ptr<Op> op, std::vector<std::unique_ptr<Op>>& kept) {
    domain_.Add(op.get());
    kept.push_back(std::move(op));
  }

  std::vector<std::unique_ptr<Operator<MeanKernel>>> means_;
  std::vector<std::unique_ptr<Operator<VolumeKernel>>> volumes_;
  Ort::CustomOpDomain domain_;
};

}  // namespace avsbg
