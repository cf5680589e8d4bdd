// What the two correlation operators have in common as TensorRT plugins (IPluginV3, TensorRT 10.3 and later).
//
// Inputs a [N, P, C] and b [N, Q, C] share a type: fp32, fp16 or bf16, linear format. Outputs are fp32. Any dimension
// may be dynamic. The ranges, and what is computed, are the contract of runtime/native/cuda/correlation.h.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <string>
#include <vector>

#include "correlation.h"
#include "switches.h"

namespace avsbg::tensorrt {

class CorrelationPlugin : public nvinfer1::IPluginV3,
                          public nvinfer1::IPluginV3OneCore,
                          public nvinfer1::IPluginV3OneBuild,
                          public nvinfer1::IPluginV3OneRuntime {
 public:
  // `node` is the name of the layer, for messages.
  CorrelationPlugin(std::string node, Switches switches);

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
  // What the operators differ in. `inputs` have rank 3.
  virtual void set_output_shapes(nvinfer1::DimsExprs const* inputs, nvinfer1::DimsExprs* outputs) const = 0;
  virtual std::size_t workspace_size(CorrelationProblem const& problem) const = 0;
  // Returns "" or why nothing was enqueued.
  virtual std::string launch(CorrelationProblem const& problem, Device const& device, void const* const* inputs,
                             void* const* outputs, void* workspace, cudaStream_t stream) const = 0;

  bool is_on(char const* switch_name) const;

 private:
  CorrelationProblem problem(nvinfer1::Dims const& a, nvinfer1::Dims const& b, nvinfer1::DataType type) const;
  template <class Result, class Body>
  Result guarded(char const* when, Result failure, Body body) const noexcept;

  std::string node_;
  Switches switches_;
  Device device_;                                    // set when TensorRT announces shapes, on the device that will run
  std::vector<nvinfer1::PluginField> fields_;        // views of switches_, for serialisation
  nvinfer1::PluginFieldCollection field_collection_{};
};

}  // namespace avsbg::tensorrt
