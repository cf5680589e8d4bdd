// The common part of the correlation operators as TensorRT plugins (IPluginV3, TensorRT 10.3 and later).
//
// All inputs share a type: fp32, fp16 or bf16. Outputs are fp32. Any dimension may be dynamic. The ranges, and what is
// computed, are the contract of runtime/native/cuda/correlation.h; the kernels are called through its C interface.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <string>
#include <vector>

#include "attributes.h"
#include "avsbg_cuda.h"

namespace avsbg::tensorrt {

// The problems of a node, in the order of its outputs.
using Tasks = std::vector<avsbg_task>;

// Throws what the kernels' C interface says of a call that did not succeed.
void check(avsbg_status status);

class CorrelationPlugin : public nvinfer1::IPluginV3,
                          public nvinfer1::IPluginV3OneCore,
                          public nvinfer1::IPluginV3OneBuild,
                          public nvinfer1::IPluginV3OneRuntime {
 public:
  // `node` is the name of the layer, for messages.
  CorrelationPlugin(std::string node, Attributes attributes);

  nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override;

  char const* getPluginVersion() const noexcept override;
  char const* getPluginNamespace() const noexcept override;

  std::int32_t getOutputDataTypes(nvinfer1::DataType* output_types, std::int32_t output_count,
                                  nvinfer1::DataType const* input_types,
                                  std::int32_t input_count) const noexcept override;
  std::int32_t getOutputShapes(nvinfer1::DimsExprs const* inputs, std::int32_t input_count,
                               nvinfer1::DimsExprs const* shape_inputs, std::int32_t shape_input_count,
                               nvinfer1::DimsExprs* outputs, std::int32_t output_count,
                               nvinfer1::IExprBuilder& builder) noexcept override;
  bool supportsFormatCombination(std::int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors,
                                 std::int32_t input_count, std::int32_t output_count) noexcept override;
  std::int32_t configurePlugin(nvinfer1::DynamicPluginTensorDesc const* inputs, std::int32_t input_count,
                               nvinfer1::DynamicPluginTensorDesc const* outputs,
                               std::int32_t output_count) noexcept override;
  std::size_t getWorkspaceSize(nvinfer1::DynamicPluginTensorDesc const* inputs, std::int32_t input_count,
                               nvinfer1::DynamicPluginTensorDesc const* outputs,
                               std::int32_t output_count) const noexcept override;

  std::int32_t onShapeChange(nvinfer1::PluginTensorDesc const* inputs, std::int32_t input_count,
                             nvinfer1::PluginTensorDesc const* outputs, std::int32_t output_count) noexcept override;
  std::int32_t enqueue(nvinfer1::PluginTensorDesc const* input_descriptions,
                       nvinfer1::PluginTensorDesc const* output_descriptions, void const* const* inputs,
                       void* const* outputs, void* workspace, cudaStream_t stream) noexcept override;
  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext* context) noexcept override;
  nvinfer1::PluginFieldCollection const* getFieldsToSerialize() noexcept override;

 protected:
  // The differences between the operators. The inputs are as many as asked for; what is wrong with them is thrown.
  virtual std::int32_t input_count() const = 0;
  virtual std::string input_names() const = 0;  // for messages
  virtual nvinfer1::TensorFormat input_format(nvinfer1::DataType type, bool is_rtx) const = 0;
  virtual void set_output_shapes(nvinfer1::DimsExprs const* inputs, nvinfer1::DimsExprs* outputs,
                                 nvinfer1::IExprBuilder& builder) const = 0;
  virtual Tasks tasks(std::vector<nvinfer1::Dims> const& inputs, avsbg_dtype type) const = 0;
  virtual std::size_t workspace_size(Tasks const& tasks) const = 0;
  virtual void launch(Tasks& tasks, avsbg_device const& device, void const* const* inputs, void* const* outputs,
                      void* workspace, cudaStream_t stream) const = 0;

  std::int32_t value_of(char const* attribute) const;

 private:
  void check_counts(std::int32_t inputs, std::int32_t outputs) const;
  template <class GetDims>
  Tasks tasks_for(nvinfer1::DataType type, GetDims get_dims) const;
  template <class Result, class Body>
  Result guarded(char const* when, Result failure, Body body) const noexcept;

  std::string node_;
  Attributes attributes_;
  avsbg_device device_{};                      // set when TensorRT announces shapes, on the device that will run
  std::vector<nvinfer1::PluginField> fields_;  // views of attributes_, for serialisation
  nvinfer1::PluginFieldCollection field_collection_{};
};

}  // namespace avsbg::tensorrt
