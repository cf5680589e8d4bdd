#include "operators.h"

#include <new>

namespace avsbg::tensorrt {
namespace {

// fp32 inputs are multiplied in tf32 on the tensor cores. TensorRT has a builder flag of that name, which plugins do
// not see. Without effect on fp16 and bf16 inputs.
constexpr Switch kTf32{"tf32", 0};

}  // namespace

// mean_b: the second output is computed. A node with one output says so with mean_b = 0, since TensorRT asks a plugin
// for its outputs without telling it how many the node has.
Switches MeanCorrelation::switches() { return {Switch{"mean_b", 1}, kTf32}; }

std::int32_t MeanCorrelation::getNbOutputs() const noexcept { return is_on("mean_b") ? 2 : 1; }

nvinfer1::IPluginV3* MeanCorrelation::clone() noexcept { return new (std::nothrow) MeanCorrelation(*this); }

void MeanCorrelation::set_output_shapes(nvinfer1::DimsExprs const* inputs, nvinfer1::DimsExprs* outputs) const {
  for (std::int32_t side = 0; side < getNbOutputs(); ++side) {
    outputs[side].nbDims = 2;
    outputs[side].d[0] = inputs[side].d[0];
    outputs[side].d[1] = inputs[side].d[1];
  }
}

std::size_t MeanCorrelation::workspace_size(CorrelationProblem const& problem) const {
  return mean_correlation_workspace_size(problem, is_on("mean_b"));
}

std::string MeanCorrelation::launch(CorrelationProblem const& problem, Device const& device,
                                    void const* const* inputs, void* const* outputs, void* workspace,
                                    cudaStream_t stream) const {
  return launch_mean_correlation(problem, device, inputs[0], inputs[1], static_cast<float*>(outputs[0]),
                                 is_on("mean_b") ? static_cast<float*>(outputs[1]) : nullptr, workspace, stream);
}

// relu: negative entries are set to 0.
Switches CorrelationVolume::switches() { return {Switch{"relu", 0}, kTf32}; }

nvinfer1::IPluginV3* CorrelationVolume::clone() noexcept { return new (std::nothrow) CorrelationVolume(*this); }

void CorrelationVolume::set_output_shapes(nvinfer1::DimsExprs const* inputs, nvinfer1::DimsExprs* outputs) const {
  outputs[0].nbDims = 3;
  outputs[0].d[0] = inputs[0].d[0];
  outputs[0].d[1] = inputs[0].d[1];
  outputs[0].d[2] = inputs[1].d[1];
}

std::size_t CorrelationVolume::workspace_size(CorrelationProblem const&) const { return 0; }

std::string CorrelationVolume::launch(CorrelationProblem const& problem, Device const& device,
                                      void const* const* inputs, void* const* outputs, void*,
                                      cudaStream_t stream) const {
  return launch_correlation_volume(problem, device, inputs[0], inputs[1], static_cast<float*>(outputs[0]),
                                   is_on("relu"), stream);
}

}  // namespace avsbg::tensorrt
