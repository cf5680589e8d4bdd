// The two operators as plugins, under the names that they have in ONNX (domain avsbg, version 1).
#pragma once

#include "correlation_plugin.h"

namespace avsbg::tensorrt {

// (a [N, P, C], b [N, Q, C]) -> (mean_a [N, P], mean_b [N, Q]); without the second output if the switch mean_b is 0
class MeanCorrelation final : public CorrelationPlugin {
 public:
  static constexpr char const* kName = "MeanCorrelation";
  static Switches switches();

  using CorrelationPlugin::CorrelationPlugin;

  char const* getPluginName() const noexcept override { return kName; }
  std::int32_t getNbOutputs() const noexcept override;
  nvinfer1::IPluginV3* clone() noexcept override;

 protected:
  void set_output_shapes(nvinfer1::DimsExprs const* inputs, nvinfer1::DimsExprs* outputs) const override;
  std::size_t workspace_size(CorrelationProblem const& problem) const override;
  std::string launch(CorrelationProblem const& problem, Device const& device, void const* const* inputs,
                     void* const* outputs, void* workspace, cudaStream_t stream) const override;
};

// (a [N, P, C], b [N, Q, C]) -> volume [N, P, Q]
class CorrelationVolume final : public CorrelationPlugin {
 public:
  static constexpr char const* kName = "CorrelationVolume";
  static Switches switches();

  using CorrelationPlugin::CorrelationPlugin;

  char const* getPluginName() const noexcept override { return kName; }
  std::int32_t getNbOutputs() const noexcept override { return 1; }
  nvinfer1::IPluginV3* clone() noexcept override;

 protected:
  void set_output_shapes(nvinfer1::DimsExprs const* inputs, nvinfer1::DimsExprs* outputs) const override;
  std::size_t workspace_size(CorrelationProblem const& problem) const override;
  std::string launch(CorrelationProblem const& problem, Device const& device, void const* const* inputs,
                     void* const* outputs, void* workspace, cudaStream_t stream) const override;
};

}  // namespace avsbg::tensorrt
