#include "correlation_plugin.h"

#include <dlfcn.h>

#include <cstring>
#include <exception>
#include <stdexcept>
#include <utility>

#include "report.h"

namespace avsbg::tensorrt {
namespace {

using nvinfer1::Dims;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginTensorDesc;
using TensorRTType = nvinfer1::DataType;

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

// Whether an address is of TensorRT for RTX: one library serves it and TensorRT, and they ask in the same words.
bool is_in_rtx(void const* address) {
  Dl_info library{};
  if (dladdr(address, &library) == 0 || library.dli_fname == nullptr) {
    return false;
  }
  // The file's own name: TensorRT may lie in a folder of any name.
  char const* slash = std::strrchr(library.dli_fname, '/');
  return std::strstr(slash == nullptr ? library.dli_fname : slash + 1, "tensorrt_rtx") != nullptr;
}

// The kernels' way to read inputs of a type.
avsbg_dtype read_type(TensorRTType type, bool tf32) {
  switch (type) {
    case TensorRTType::kFLOAT: return tf32 ? AVSBG_TF32 : AVSBG_FLOAT32;
    case TensorRTType::kHALF: return AVSBG_FLOAT16;
    case TensorRTType::kBF16: return AVSBG_BFLOAT16;
    default: throw std::invalid_argument("inputs of type " + type_name(type) + " are not supported");
  }
}

}  // namespace

void check(avsbg_status status) {
  if (status != AVSBG_SUCCESS) {
    throw std::invalid_argument(avsbg_cuda_last_error());
  }
}

CorrelationPlugin::CorrelationPlugin(std::string node, Attributes attributes)
    : node_(std::move(node)), attributes_(std::move(attributes)) {}

void CorrelationPlugin::check_counts(std::int32_t inputs, std::int32_t outputs) const {
  if (inputs != input_count() || outputs != getNbOutputs()) {
    throw std::invalid_argument("it takes " + std::to_string(input_count()) + " inputs, " + input_names() +
                                ", and has " + std::to_string(getNbOutputs()) + " outputs; the network gives it " +
                                std::to_string(inputs) + " inputs and " + std::to_string(outputs) + " outputs");
  }
}

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
    check_counts(input_count, output_count);
    for (std::int32_t i = 0; i < input_count; ++i) {
      if (!is_supported(input_types[0]) || input_types[0] != input_types[i]) {
        throw std::invalid_argument(input_names() + " are " + type_name(input_types[0]) + " and " +
                                    type_name(input_types[i]) +
                                    "; all must be float32, all float16 or all bfloat16");
      }
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
                                                nvinfer1::IExprBuilder& builder) noexcept {
  return guarded("output shapes", -1, [&] {
    check_counts(input_count, output_count);
    set_output_shapes(inputs, outputs, builder);
    return 0;
  });
}

bool CorrelationPlugin::supportsFormatCombination(std::int32_t position, DynamicPluginTensorDesc const* tensors,
                                                  std::int32_t input_count, std::int32_t) noexcept {
  PluginTensorDesc const& tensor = tensors[position].desc;
  if (position >= input_count) {
    return tensor.type == TensorRTType::kFLOAT && tensor.format == nvinfer1::TensorFormat::kLINEAR;
  }
  bool const is_rtx = is_in_rtx(__builtin_return_address(0));
  return is_supported(tensor.type) && tensor.type == tensors[0].desc.type &&
         tensor.format == input_format(tensor.type, is_rtx);
}

// The problems of inputs, of which `get_dims` returns the shape of one by its number.
template <class GetDims>
Tasks CorrelationPlugin::tasks_for(TensorRTType type, GetDims get_dims) const {
  std::vector<Dims> shapes;
  for (std::int32_t i = 0; i < input_count(); ++i) {
    shapes.push_back(get_dims(i));
  }
  return tasks(shapes, read_type(type, value_of("tf32") != 0));
}

std::int32_t CorrelationPlugin::configurePlugin(DynamicPluginTensorDesc const* inputs, std::int32_t input_count,
                                                DynamicPluginTensorDesc const*, std::int32_t output_count) noexcept {
  return guarded("configuration", -1, [&] {
    check_counts(input_count, output_count);
    TensorRTType const type = inputs[0].desc.type;
    for (Tasks const& extreme : {tasks_for(type, [&](std::int32_t i) { return inputs[i].min; }),
                                 tasks_for(type, [&](std::int32_t i) { return inputs[i].max; })}) {
      for (avsbg_task const& task : extreme) {
        check(avsbg_cuda_check_problem(&task.problem, nullptr));
      }
    }
    return 0;
  });
}

std::size_t CorrelationPlugin::getWorkspaceSize(DynamicPluginTensorDesc const* inputs, std::int32_t,
                                                DynamicPluginTensorDesc const*, std::int32_t) const noexcept {
  // The size never decreases as shapes grow (avsbg_cuda.h), so that of the largest shapes serves the whole profile.
  return guarded("workspace size", std::size_t{0}, [&] {
    return workspace_size(tasks_for(inputs[0].desc.type, [&](std::int32_t i) { return inputs[i].max; }));
  });
}

std::int32_t CorrelationPlugin::onShapeChange(PluginTensorDesc const* inputs, std::int32_t input_count,
                                              PluginTensorDesc const*, std::int32_t output_count) noexcept {
  return guarded("new shapes", -1, [&] {
    check_counts(input_count, output_count);
    Tasks const announced = tasks_for(inputs[0].type, [&](std::int32_t i) { return inputs[i].dims; });
    check(avsbg_cuda_query_device(&device_));
    for (avsbg_task const& task : announced) {
      check(avsbg_cuda_check_problem(&task.problem, &device_));
    }
    return 0;
  });
}

std::int32_t CorrelationPlugin::enqueue(PluginTensorDesc const* input_descriptions, PluginTensorDesc const*,
                                        void const* const* inputs, void* const* outputs, void* workspace,
                                        cudaStream_t stream) noexcept {
  return guarded("execution", -1, [&] {
    Tasks current =
        tasks_for(input_descriptions[0].type, [&](std::int32_t i) { return input_descriptions[i].dims; });
    if (device_.sm_count == 0) {  // TensorRT announces shapes first, other callers may not
      check(avsbg_cuda_query_device(&device_));
    }
    launch(current, device_, inputs, outputs, workspace, stream);
    return 0;
  });
}

nvinfer1::IPluginV3* CorrelationPlugin::attachToContext(nvinfer1::IPluginResourceContext*) noexcept { return clone(); }

nvinfer1::PluginFieldCollection const* CorrelationPlugin::getFieldsToSerialize() noexcept {
  return guarded<nvinfer1::PluginFieldCollection const*>("serialisation", nullptr, [&] {
    fields_.clear();
    for (auto const& current : attributes_) {
      fields_.emplace_back(current.name, &current.value, nvinfer1::PluginFieldType::kINT32, 1);
    }
    field_collection_ = {static_cast<std::int32_t>(fields_.size()), fields_.data()};
    return &field_collection_;
  });
}

std::int32_t CorrelationPlugin::value_of(char const* attribute) const {
  for (auto const& candidate : attributes_) {
    if (std::strcmp(candidate.name, attribute) == 0) {
      return candidate.value;
    }
  }
  throw std::logic_error(std::string("no attribute is named ") + attribute);
}

}  // namespace avsbg::tensorrt
