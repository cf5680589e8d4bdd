// The operators as plugins. The first two have the names and inputs that they have in ONNX (domain avsbg, version 1);
// the third is what a graph for TensorRT has in place of several nodes of the first.
#pragma once

#include "correlation_plugin.h"

namespace avsbg::tensorrt {

// Two inputs, a [N, P, C] and b [N, Q, C], in linear format.
class PairPlugin : public CorrelationPlugin {
 public:
  using CorrelationPlugin::CorrelationPlugin;

 protected:
  std::int32_t input_count() const override { return 2; }
  std::string input_names() const override { return "a and b"; }
  nvinfer1::TensorFormat input_format(nvinfer1::DataType, bool) const override {
    return nvinfer1::TensorFormat::kLINEAR;
  }
  void set_output_shapes(nvinfer1::DimsExprs const* inputs, nvinfer1::DimsExprs* outputs,
                         nvinfer1::IExprBuilder& builder) const override;
  Tasks tasks(std::vector<nvinfer1::Dims> const& inputs, avsbg_dtype type) const override;
  virtual void set_shapes(nvinfer1::DimsExprs const* inputs, nvinfer1::DimsExprs* outputs) const = 0;
};

// (a, b) -> (mean_a [N, P], mean_b [N, Q]); without the second output if the attribute mean_b is 0
class MeanCorrelation final : public PairPlugin {
 public:
  static constexpr char const* kName = "MeanCorrelation";
  static Attributes attributes();

  using PairPlugin::PairPlugin;

  char const* getPluginName() const noexcept override { return kName; }
  std::int32_t getNbOutputs() const noexcept override;
  nvinfer1::IPluginV3* clone() noexcept override;

 protected:
  void set_shapes(nvinfer1::DimsExprs const* inputs, nvinfer1::DimsExprs* outputs) const override;
  std::size_t workspace_size(Tasks const& tasks) const override;
  void launch(Tasks& tasks, avsbg_device const& device, void const* const* inputs, void* const* outputs,
              void* workspace, cudaStream_t stream) const override;
};

// (a, b) -> volume [N, P, Q]
class CorrelationVolume final : public PairPlugin {
 public:
  static constexpr char const* kName = "CorrelationVolume";
  static Attributes attributes();

  using PairPlugin::PairPlugin;

  char const* getPluginName() const noexcept override { return kName; }
  std::int32_t getNbOutputs() const noexcept override { return 1; }
  nvinfer1::IPluginV3* clone() noexcept override;

 protected:
  void set_shapes(nvinfer1::DimsExprs const* inputs, nvinfer1::DimsExprs* outputs) const override;
  std::size_t workspace_size(Tasks const& tasks) const override;
  void launch(Tasks& tasks, avsbg_device const& device, void const* const* inputs, void* const* outputs,
              void* workspace, cudaStream_t stream) const override;
};

// The means of up to four stages of feature maps in one launch, without copies: the maps are read channels-last, as
// TensorRT's convolutions write them, and the pairs of a clip are found in them by place.
//
// frames = T >= 2: one input for each stage, [B * T, C, H, W], clip-major. The N = B * (T - 1) pairs are those of
//   neighbouring frames: (maps of stage 0, maps of stage 1, ...) -> (mean_a, mean_b of stage 0, mean_a, ...).
// frames = 0: two inputs for each stage, a and b [N, C, H, W]: (a, b of stage 0, a, b of stage 1, ...) -> the same.
// Every output is [N, H * W]; the mean_b are left out if the attribute mean_b is 0.
class MeanCorrelations final : public CorrelationPlugin {
 public:
  static constexpr char const* kName = "MeanCorrelations";
  static Attributes attributes();

  using CorrelationPlugin::CorrelationPlugin;

  char const* getPluginName() const noexcept override { return kName; }
  std::int32_t getNbOutputs() const noexcept override;
  nvinfer1::IPluginV3* clone() noexcept override;

 protected:
  std::int32_t input_count() const override;
  std::string input_names() const override;
  nvinfer1::TensorFormat input_format(nvinfer1::DataType type, bool is_rtx) const override;
  void set_output_shapes(nvinfer1::DimsExprs const* inputs, nvinfer1::DimsExprs* outputs,
                         nvinfer1::IExprBuilder& builder) const override;
  Tasks tasks(std::vector<nvinfer1::Dims> const& inputs, avsbg_dtype type) const override;
  std::size_t workspace_size(Tasks const& tasks) const override;
  void launch(Tasks& tasks, avsbg_device const& device, void const* const* inputs, void* const* outputs,
              void* workspace, cudaStream_t stream) const override;

 private:
  std::int32_t inputs_per_stage() const { return value_of("frames") == 0 ? 2 : 1; }
};

}  // namespace avsbg::tensorrt
