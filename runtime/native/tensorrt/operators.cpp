#include "operators.h"

#include <new>
#include <stdexcept>

namespace avsbg::tensorrt {
namespace {

using nvinfer1::Dims;
using nvinfer1::DimsExprs;
using nvinfer1::IDimensionExpr;
using nvinfer1::TensorFormat;

// fp32 inputs are multiplied in tf32 on the tensor cores. TensorRT has a builder flag of that name, which plugins do
// not see. Without effect on fp16 and bf16 inputs.
constexpr Attribute kTf32{"tf32", 0};
// mean_b: the second output is computed. A node without it says so with mean_b = 0, since TensorRT asks a plugin for its
// outputs without telling it how many the node has.
constexpr Attribute kMeanB{"mean_b", 1};

constexpr std::int32_t kMostFrames = 1 << 16;

std::string shape_text(Dims const& dims) {
  std::string text = "[";
  for (std::int32_t i = 0; i < dims.nbDims; ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(dims.d[i]);
  }
  return text + "]";
}

void check_rank(std::string const& input, std::int32_t rank, std::int32_t wanted) {
  if (rank != wanted) {
    throw std::invalid_argument("input " + input + " has rank " + std::to_string(rank) + "; it must have rank " +
                                std::to_string(wanted) + ": " +
                                (wanted == 3 ? "[pairs, positions, channels]" : "[maps, channels, height, width]"));
  }
}

// Compares two dimensions as far as they are known when the network is built.
void check_equal(char const* what, IDimensionExpr const* a, IDimensionExpr const* b) {
  if (a->isConstant() && b->isConstant() && a->getConstantValue() != b->getConstantValue()) {
    throw std::invalid_argument("a has " + std::to_string(a->getConstantValue()) + " " + what + " and b has " +
                                std::to_string(b->getConstantValue()) + "; they must have the same");
  }
}

std::string stage_name(std::int32_t stage) { return "of stage " + std::to_string(stage); }

std::size_t means_workspace_size(Tasks const& tasks, bool with_mean_b) {
  std::size_t bytes = 0;
  auto const count = static_cast<std::int32_t>(tasks.size());
  check(avsbg_cuda_group_workspace_size(tasks.data(), count, with_mean_b, &bytes));
  return bytes;
}

// Launches the means of all tasks. Inputs and outputs are in the tasks' order; of a clip there is one input.
void launch_means(Tasks& tasks, bool with_mean_b, avsbg_device const& device, void const* const* inputs,
                  void* const* outputs, void* workspace, cudaStream_t stream) {
  for (avsbg_task& task : tasks) {
    task.a = *inputs++;
    if (task.pairs_per_clip == 0) {
      task.b = *inputs++;
    } else {  // the second frame of the first clip
      bool const narrow = task.problem.dtype == AVSBG_FLOAT16 || task.problem.dtype == AVSBG_BFLOAT16;
      task.b = static_cast<char const*>(task.a) + task.problem.p * task.problem.c * (narrow ? 2 : 4);
    }
    task.mean_a = static_cast<float*>(*outputs++);
    task.mean_b = with_mean_b ? static_cast<float*>(*outputs++) : nullptr;
  }
  // TensorRT says no size: the workspace has at least what getWorkspaceSize asked for these shapes or larger ones.
  check(avsbg_cuda_mean_correlations(tasks.data(), static_cast<std::int32_t>(tasks.size()), &device, workspace,
                                     means_workspace_size(tasks, with_mean_b), stream));
}

}  // namespace

void PairPlugin::set_output_shapes(DimsExprs const* inputs, DimsExprs* outputs, nvinfer1::IExprBuilder&) const {
  check_rank("a", inputs[0].nbDims, 3);
  check_rank("b", inputs[1].nbDims, 3);
  check_equal("pairs", inputs[0].d[0], inputs[1].d[0]);
  check_equal("channels", inputs[0].d[2], inputs[1].d[2]);
  set_shapes(inputs, outputs);
}

Tasks PairPlugin::tasks(std::vector<Dims> const& inputs, avsbg_dtype type) const {
  Dims const &a = inputs[0], &b = inputs[1];
  check_rank("a", a.nbDims, 3);
  check_rank("b", b.nbDims, 3);
  if (a.d[0] != b.d[0] || a.d[2] != b.d[2]) {
    throw std::invalid_argument("a is " + shape_text(a) + " and b is " + shape_text(b) +
                                "; they must agree in pairs and channels");
  }
  Tasks result(1);
  result[0].problem = {a.d[0], a.d[1], b.d[1], a.d[2], type};
  return result;
}

Attributes MeanCorrelation::attributes() { return {kMeanB, kTf32}; }

std::int32_t MeanCorrelation::getNbOutputs() const noexcept { return value_of("mean_b") != 0 ? 2 : 1; }

nvinfer1::IPluginV3* MeanCorrelation::clone() noexcept { return new (std::nothrow) MeanCorrelation(*this); }

void MeanCorrelation::set_shapes(DimsExprs const* inputs, DimsExprs* outputs) const {
  for (std::int32_t side = 0; side < getNbOutputs(); ++side) {
    outputs[side].nbDims = 2;
    outputs[side].d[0] = inputs[side].d[0];
    outputs[side].d[1] = inputs[side].d[1];
  }
}

std::size_t MeanCorrelation::workspace_size(Tasks const& tasks) const {
  return means_workspace_size(tasks, value_of("mean_b") != 0);
}

void MeanCorrelation::launch(Tasks& tasks, avsbg_device const& device, void const* const* inputs,
                             void* const* outputs, void* workspace, cudaStream_t stream) const {
  launch_means(tasks, value_of("mean_b") != 0, device, inputs, outputs, workspace, stream);
}

// relu: negative entries are set to 0.
Attributes CorrelationVolume::attributes() { return {Attribute{"relu", 0}, kTf32}; }

nvinfer1::IPluginV3* CorrelationVolume::clone() noexcept { return new (std::nothrow) CorrelationVolume(*this); }

void CorrelationVolume::set_shapes(DimsExprs const* inputs, DimsExprs* outputs) const {
  outputs[0].nbDims = 3;
  outputs[0].d[0] = inputs[0].d[0];
  outputs[0].d[1] = inputs[0].d[1];
  outputs[0].d[2] = inputs[1].d[1];
}

std::size_t CorrelationVolume::workspace_size(Tasks const&) const { return 0; }

void CorrelationVolume::launch(Tasks& tasks, avsbg_device const& device, void const* const* inputs,
                               void* const* outputs, void*, cudaStream_t stream) const {
  check(avsbg_cuda_correlation_volume(&tasks[0].problem, &device, inputs[0], inputs[1],
                                      static_cast<float*>(outputs[0]), value_of("relu"), stream));
}

Attributes MeanCorrelations::attributes() {
  return {Attribute{"stages", 1, 1, AVSBG_CUDA_MOST_TASKS}, Attribute{"frames", 0, 0, kMostFrames}, kMeanB, kTf32};
}

std::int32_t MeanCorrelations::getNbOutputs() const noexcept {
  return value_of("stages") * (value_of("mean_b") != 0 ? 2 : 1);
}

nvinfer1::IPluginV3* MeanCorrelations::clone() noexcept { return new (std::nothrow) MeanCorrelations(*this); }

std::int32_t MeanCorrelations::input_count() const { return value_of("stages") * inputs_per_stage(); }

std::string MeanCorrelations::input_names() const {
  return inputs_per_stage() == 2 ? "a and b of each stage" : "the maps of each stage";
}

// Channels last. The two formats are one layout here, since the kernels take multiples of 8 channels only. TensorRT
// documents kHWC for fp32 and kHWC8 for fp16 and bf16. The compiler of TensorRT for RTX 1.7.1 takes kHWC for every type,
// as its convolutions write it, and for kHWC8 it copies the maps twice (tests/export/engine/test_build.py).
TensorFormat MeanCorrelations::input_format(nvinfer1::DataType type, bool is_rtx) const {
  return is_rtx || type == nvinfer1::DataType::kFLOAT ? TensorFormat::kHWC : TensorFormat::kHWC8;
}

void MeanCorrelations::set_output_shapes(DimsExprs const* inputs, DimsExprs* outputs,
                                         nvinfer1::IExprBuilder& builder) const {
  using nvinfer1::DimensionOperation;
  std::int32_t const frames = value_of("frames");
  for (std::int32_t stage = 0; stage < value_of("stages"); ++stage) {
    DimsExprs const* const maps = inputs + stage * inputs_per_stage();
    for (std::int32_t i = 0; i < inputs_per_stage(); ++i) {
      check_rank(stage_name(stage), maps[i].nbDims, 4);
      check_equal("maps", maps[0].d[0], maps[i].d[0]);
      check_equal("channels", maps[0].d[1], maps[i].d[1]);
    }
    IDimensionExpr const* pairs = maps[0].d[0];
    if (frames > 0) {
      pairs = builder.operation(DimensionOperation::kFLOOR_DIV, *pairs, *builder.constant(frames));
      pairs = builder.operation(DimensionOperation::kPROD, *pairs, *builder.constant(frames - 1));
    }
    for (std::int32_t side = 0; side < getNbOutputs() / value_of("stages"); ++side, ++outputs) {
      DimsExprs const& map = maps[inputs_per_stage() == 2 ? side : 0];
      outputs->nbDims = 2;
      outputs->d[0] = pairs;
      outputs->d[1] = builder.operation(DimensionOperation::kPROD, *map.d[2], *map.d[3]);
    }
  }
}

Tasks MeanCorrelations::tasks(std::vector<Dims> const& inputs, avsbg_dtype type) const {
  std::int32_t const frames = value_of("frames");
  if (frames == 1) {
    throw std::invalid_argument("attribute frames is 1; a clip has at least 2, and 0 means that partners are inputs");
  }
  Tasks result;
  for (std::size_t i = 0; i < inputs.size(); i += inputs_per_stage()) {
    Dims const &a = inputs[i], &b = inputs[i + inputs_per_stage() - 1];
    std::string const name = stage_name(static_cast<std::int32_t>(result.size()));
    check_rank(name, a.nbDims, 4);
    check_rank(name, b.nbDims, 4);
    if (a.d[0] != b.d[0] || a.d[1] != b.d[1]) {
      throw std::invalid_argument("a " + name + " is " + shape_text(a) + " and b is " + shape_text(b) +
                                  "; they must agree in maps and channels");
    }
    if (frames > 0 && a.d[0] % frames != 0) {
      throw std::invalid_argument("the input " + name + " is " + shape_text(a) + ", no whole number of clips of " +
                                  std::to_string(frames) + " frames");
    }
    avsbg_task task{};
    task.problem = {a.d[0], a.d[2] * a.d[3], b.d[2] * b.d[3], a.d[1], type};
    if (frames > 0) {
      task.problem.n = a.d[0] / frames * (frames - 1);
      task.pairs_per_clip = frames - 1;
    }
    result.push_back(task);
  }
  return result;
}

std::size_t MeanCorrelations::workspace_size(Tasks const& tasks) const {
  return means_workspace_size(tasks, value_of("mean_b") != 0);
}

void MeanCorrelations::launch(Tasks& tasks, avsbg_device const& device, void const* const* inputs,
                              void* const* outputs, void* workspace, cudaStream_t stream) const {
  launch_means(tasks, value_of("mean_b") != 0, device, inputs, outputs, workspace, stream);
}

}  // namespace avsbg::tensorrt
