#include "correlation_plugin.h"

#include <cstring>
#include <exception>
#include <stdexcept>
#include <utility>

#include "report.h"

namespace avsbg::tensorrt {
namespace {

using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginTensorDesc;
using TensorRTType = nvinfer1::DataType;

constexpr std::int32_t kInputs = 2;

// The names that ONNX users know.
std::string type_name(TensorRTType type) {
  switch (type) {
    case TensorRTType::kFLOAT: return "float32";
    case TensorRTType::kHALF: return "float16";
    case TensorRTType::kBF16: return "bfloat16";
    case TensorRTType::kINT8: return "int8";
    case TensorRTType::kUINT8: return "uint8";
    case TensorRTType::kINT32: return "int32";
    case TensorRTType::kINT64: return "int64";
    case TensorRTType::kBOOL: return "bool";
    case TensorRTType::kFP8: return "float8";
    default: return "TensorRT's data type " + std::to_string(static_cast<int>(type));
  }
}

bool is_supported(TensorRTType type) {
  return type == TensorRTType::kFLOAT || type == TensorRTType::kHALF || type == TensorRTType::kBF16;
}

std::string shape_text(nvinfer1::Dims const& dims) {
  std::string text = "[";
  for (std::int32_t i = 0; i < dims.nbDims; ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(dims.d[i]);
  }
  return text + "]";
}

void check_counts(std::int32_t inputs, std::int32_t outputs, std::int32_t expected_outputs) {
  if (inputs != kInputs || outputs != expected_outputs) {
    throw std::invalid_argument("it takes 2 inputs, a and b, and has " + std::to_string(expected_outputs) +
                                " outputs; the network gives it " + std::to_string(inputs) + " inputs and " +
                                std::to_string(outputs) + " outputs");
  }
}

void check_rank(char const* input, std::int32_t rank) {
  if (rank != 3) {
    throw std::invalid_argument("input " + std::string(input) + " has rank " + std::to_string(rank) +
                                "; it must have rank 3: [pairs, positions, channels]");
  }
}

// Compares two dimensions as far as they are known when the network is built.
void check_equal(char const* what, nvinfer1::IDimensionExpr const* a, nvinfer1::IDimensionExpr const* b) {
  if (a->isConstant() && b->isConstant() && a->getConstantValue() != b->getConstantValue()) {
    throw std::invalid_argument("a has " + std::to_string(a->getConstantValue()) + " " + what + " and b has " +
                                std::to_string(b->getConstantValue()) + "; they must have the same");
  }
}

void check_accepted(std::string const& why_not) {
  if (!why_not.empty()) {
    throw std::invalid_argument(why_not);
  }
}

}  // namespace

CorrelationPlugin::CorrelationPlugin(std::string node, Switches switches)
    : node_(std::move(node)), switches_(std::move(switches)) {}

// TensorRT's interfaces are noexcept and fail with a value: every error becomes a message and that value here.
template <class Result, class Body>
Result CorrelationPlugin::guarded(char const* when, Result failure, Body body) const noexcept {
  try {
    return body();
  } catch (std::exception const& error) {
    report_failure(getPluginName(), node_.c_str(), when, error.what());
    return failure;
  }
}

nvinfer1::IPluginCapability* CorrelationPlugin::getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept {
  switch (type) {
    case nvinfer1::PluginCapabilityType::kCORE: return static_cast<nvinfer1::IPluginV3OneCore*>(this);
    case nvinfer1::PluginCapabilityType::kBUILD: return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
    case nvinfer1::PluginCapabilityType::kRUNTIME: return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
  }
  return nullptr;  // a capability of a later TensorRT, which it then knows not to use
}

char const* CorrelationPlugin::getPluginVersion() const noexcept { return "1"; }
char const* CorrelationPlugin::getPluginNamespace() const noexcept { return ""; }

std::int32_t CorrelationPlugin::getOutputDataTypes(TensorRTType* output_types, std::int32_t output_count,
                                                   TensorRTType const* input_types,
                                                   std::int32_t input_count) const noexcept {
  return guarded("output types", -1, [&] {
    check_counts(input_count, output_count, getNbOutputs());
    if (!is_supported(input_types[0]) || input_types[0] != input_types[1]) {
      throw std::invalid_argument("a is " + type_name(input_types[0]) + " and b is " + type_name(input_types[1]) +
                                  "; both must be float32, both float16 or both bfloat16");
    }
    for (std::int32_t i = 0; i < output_count; ++i) {
      output_types[i] = TensorRTType::kFLOAT;
    }
    return 0;
  });
}

std::int32_t CorrelationPlugin::getOutputShapes(nvinfer1::DimsExprs const* inputs, std::int32_t input_count,
                                                nvinfer1::DimsExprs const*, std::int32_t,
                                                nvinfer1::DimsExprs* outputs, std::int32_t output_count,
                                                nvinfer1::IExprBuilder&) noexcept {
  return guarded("output shapes", -1, [&] {
    check_counts(input_count, output_count, getNbOutputs());
    check_rank("a", inputs[0].nbDims);
    check_rank("b", inputs[1].nbDims);
    check_equal("pairs", inputs[0].d[0], inputs[1].d[0]);
    check_equal("channels", inputs[0].d[2], inputs[1].d[2]);
    set_output_shapes(inputs, outputs);
    return 0;
  });
}

bool CorrelationPlugin::supportsFormatCombination(std::int32_t position, DynamicPluginTensorDesc const* tensors,
                                                  std::int32_t input_count, std::int32_t) noexcept {
  PluginTensorDesc const& tensor = tensors[position].desc;
  if (tensor.format != nvinfer1::TensorFormat::kLINEAR) {
    return false;
  }
  if (position == 0) {
    return is_supported(tensor.type);
  }
  return tensor.type == (position < input_count ? tensors[0].desc.type : TensorRTType::kFLOAT);
}

CorrelationProblem CorrelationPlugin::problem(nvinfer1::Dims const& a, nvinfer1::Dims const& b,
                                              TensorRTType type) const {
  check_rank("a", a.nbDims);
  check_rank("b", b.nbDims);
  if (a.d[0] != b.d[0] || a.d[2] != b.d[2]) {
    throw std::invalid_argument("a is " + shape_text(a) + " and b is " + shape_text(b) +
                                "; they must agree in pairs and channels");
  }
  CorrelationProblem result;
  result.n = a.d[0];
  result.p = a.d[1];
  result.q = b.d[1];
  result.c = a.d[2];
  switch (type) {
    case TensorRTType::kFLOAT: result.dtype = is_on("tf32") ? DataType::kTf32 : DataType::kFloat32; break;
    case TensorRTType::kHALF: result.dtype = DataType::kFloat16; break;
    case TensorRTType::kBF16: result.dtype = DataType::kBfloat16; break;
    default: throw std::invalid_argument("inputs of type " + type_name(type) + " are not supported");
  }
  return result;
}

std::int32_t CorrelationPlugin::configurePlugin(DynamicPluginTensorDesc const* inputs, std::int32_t input_count,
                                                DynamicPluginTensorDesc const*, std::int32_t output_count) noexcept {
  return guarded("configuration", -1, [&] {
    check_counts(input_count, output_count, getNbOutputs());
    TensorRTType const type = inputs[0].desc.type;
    check_accepted(why_declined(problem(inputs[0].min, inputs[1].min, type)));
    check_accepted(why_declined(problem(inputs[0].max, inputs[1].max, type)));
    return 0;
  });
}

std::size_t CorrelationPlugin::getWorkspaceSize(DynamicPluginTensorDesc const* inputs, std::int32_t,
                                                DynamicPluginTensorDesc const*, std::int32_t) const noexcept {
  // The size never decreases as shapes grow (correlation.h), so that of the largest shapes serves the whole profile.
  return guarded("workspace size", std::size_t{0}, [&] {
    return workspace_size(problem(inputs[0].max, inputs[1].max, inputs[0].desc.type));
  });
}

std::int32_t CorrelationPlugin::onShapeChange(PluginTensorDesc const* inputs, std::int32_t input_count,
                                              PluginTensorDesc const*, std::int32_t output_count) noexcept {
  return guarded("new shapes", -1, [&] {
    check_counts(input_count, output_count, getNbOutputs());
    CorrelationProblem const announced = problem(inputs[0].dims, inputs[1].dims, inputs[0].type);
    check_accepted(query_device(device_));
    check_accepted(why_declined(announced, device_));
    return 0;
  });
}

std::int32_t CorrelationPlugin::enqueue(PluginTensorDesc const* input_descriptions, PluginTensorDesc const*,
                                        void const* const* inputs, void* const* outputs, void* workspace,
                                        cudaStream_t stream) noexcept {
  return guarded("execution", -1, [&] {
    CorrelationProblem const current =
        problem(input_descriptions[0].dims, input_descriptions[1].dims, input_descriptions[0].type);
    if (device_.sm_count == 0) {  // TensorRT announces shapes first, other callers may not
      check_accepted(query_device(device_));
    }
    check_accepted(launch(current, device_, inputs, outputs, workspace, stream));
    return 0;
  });
}

nvinfer1::IPluginV3* CorrelationPlugin::attachToContext(nvinfer1::IPluginResourceContext*) noexcept { return clone(); }

nvinfer1::PluginFieldCollection const* CorrelationPlugin::getFieldsToSerialize() noexcept {
  return guarded<nvinfer1::PluginFieldCollection const*>("serialisation", nullptr, [&] {
    fields_.clear();
    for (auto const& current : switches_) {
      fields_.emplace_back(current.name, &current.value, nvinfer1::PluginFieldType::kINT32, 1);
    }
    field_collection_ = {static_cast<std::int32_t>(fields_.size()), fields_.data()};
    return &field_collection_;
  });
}

bool CorrelationPlugin::is_on(char const* switch_name) const {
  for (auto const& candidate : switches_) {
    if (std::strcmp(candidate.name, switch_name) == 0) {
      return candidate.value != 0;
    }
  }
  throw std::logic_error(std::string("no switch is named ") + switch_name);
}

}  // namespace avsbg::tensorrt
