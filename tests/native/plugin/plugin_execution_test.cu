// The plugin's run-time half without TensorRT: what an engine stored is loaded and attached to a context, shapes are
// announced, and enqueue runs against float64: on a GPU, by itself and captured in a CUDA graph; or, compiled by the
// host's compiler with -DEMULATED, on the emulation of tests/native/emulation.
//
// Usage: plugin_execution_test LIBRARY. Exits with 77 where there is no GPU.
#include <NvInferRuntime.h>
#include <cuda_runtime.h>
#include <dlfcn.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "check.h"

namespace {

using namespace nvinfer1;

constexpr int kChannels = 64, kWidth = 5;

// The types in which a node reads and multiplies its inputs.
struct Precision {
  DataType type;
  bool tf32;

  bool is_narrow() const { return type != DataType::kFLOAT; }
};

// A node: `maps` of each input, with the positions of a and of b in each stage.
struct Node {
  int creator;
  int frames;  // 0: b is an input of its own
  int maps;
  std::vector<std::pair<int, int>> stages;
  bool mean_b;

  int pairs() const { return frames == 0 ? maps : maps / frames * (frames - 1); }
};

struct Buffer {
  explicit Buffer(std::size_t bytes) { CHECK(cudaMalloc(&pointer, bytes > 0 ? bytes : 1) == cudaSuccess); }
  Buffer(Buffer const&) = delete;
  Buffer& operator=(Buffer const&) = delete;
  ~Buffer() { cudaFree(pointer); }
  void* pointer = nullptr;
};

using Buffers = std::vector<std::unique_ptr<Buffer>>;
using Values = std::vector<float>;

// Small multiples of 1/8: exact in every type, and so are the products' sums in fp32.
Values values(int count, unsigned seed) {
  Values made;
  for (int i = 0; i < count; ++i) {
    seed = seed * 1664525U + 1013904223U;
    made.push_back(static_cast<float>(static_cast<int>(seed >> 28) - 8) / 8.0F);
  }
  return made;
}

// The bits of a number that fp16 and bf16 hold exactly.
std::uint16_t narrow_bits(float value, DataType type) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof(bits));
  if (type == DataType::kBF16 || value == 0.0F) return static_cast<std::uint16_t>(bits >> 16);
  return static_cast<std::uint16_t>((bits >> 16 & 0x8000U) | ((bits >> 13 & 0x3ffffU) - (112U << 10)));
}

void upload(Buffer const& to, Values const& from, Precision precision) {
  std::vector<std::uint16_t> narrow;
  for (float const value : from) narrow.push_back(narrow_bits(value, precision.type));
  void const* const source = precision.is_narrow() ? static_cast<void const*>(narrow.data()) : from.data();
  std::size_t const bytes = from.size() * (precision.is_narrow() ? 2 : 4);
  CHECK(cudaMemcpy(to.pointer, source, bytes, cudaMemcpyHostToDevice) == cudaSuccess);
}

// The means over b of a stage's pairs, and then those over a.
std::pair<std::vector<double>, std::vector<double>> reference(Node const& node, Values const& a, Values const& b,
                                                             int rows, int columns) {
  std::vector<double> mean_a(node.pairs() * rows), mean_b(node.pairs() * columns);
  for (int n = 0; n < node.pairs(); ++n) {
    int const map = node.frames == 0 ? n : n + n / (node.frames - 1);
    int const partner = node.frames == 0 ? n : map + 1;
    for (int p = 0; p < rows; ++p) {
      for (int q = 0; q < columns; ++q) {
        double product = 0;
        for (int c = 0; c < kChannels; ++c)
          product += double{a[(map * rows + p) * kChannels + c]} * b[(partner * columns + q) * kChannels + c];
        if (product < 0) continue;
        mean_a[n * rows + p] += product / columns;
        mean_b[n * columns + q] += product / rows;
      }
    }
  }
  return {mean_a, mean_b};
}

void check_means(Buffer const& from, std::vector<double> const& expected) {
  Values result(expected.size());
  CHECK(cudaMemcpy(result.data(), from.pointer, result.size() * sizeof(float), cudaMemcpyDeviceToHost) == cudaSuccess);
  int wrong = 0;
  for (std::size_t i = 0; i < result.size(); ++i) wrong += !(std::abs(result[i] - expected[i]) < 1e-4);
  CHECK(wrong == 0);
  if (wrong > 0) std::printf("%d of %zu means are wrong\n", wrong, result.size());
}

PluginTensorDesc tensor(std::initializer_list<int> shape, DataType type, TensorFormat format) {
  PluginTensorDesc description{};
  for (int const size : shape) description.dims.d[description.dims.nbDims++] = size;
  description.type = type;
  description.format = format;
  return description;
}

// Of so many positions of each map. MeanCorrelations takes what are maps to TensorRT, channels last in memory.
PluginTensorDesc input(Node const& node, int positions, Precision precision) {
  if (node.creator == 0) return tensor({node.maps, positions, kChannels}, precision.type, TensorFormat::kLINEAR);
  TensorFormat const format = precision.is_narrow() ? TensorFormat::kHWC8 : TensorFormat::kHWC;
  return tensor({node.maps, kChannels, positions / kWidth, kWidth}, precision.type, format);
}

std::unique_ptr<IPluginV3> load(IPluginCreatorV3One& creator, Node const& node, bool tf32) {
  std::int32_t const numbers[] = {static_cast<std::int32_t>(node.stages.size()), node.frames, node.mean_b, tf32};
  char const* const names[] = {"stages", "frames", "mean_b", "tf32"};
  std::vector<PluginField> stored;
  for (int i = node.creator == 0 ? 2 : 0; i < 4; ++i)
    stored.emplace_back(names[i], &numbers[i], PluginFieldType::kINT32, 1);
  PluginFieldCollection const fields{static_cast<std::int32_t>(stored.size()), stored.data()};
  std::unique_ptr<IPluginV3> const loaded{creator.createPlugin("node", &fields, TensorRTPhase::kRUNTIME)};
  CHECK(loaded != nullptr);
  auto& prototype =
      *static_cast<IPluginV3OneRuntime*>(loaded->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
  return std::unique_ptr<IPluginV3>{prototype.attachToContext(nullptr)};
}

void check_execution(IPluginCreatorV3One& creator, Node const& node, Precision precision) {
  std::unique_ptr<IPluginV3> const attached = load(creator, node, precision.tf32);
  auto& plugin = *static_cast<IPluginV3OneRuntime*>(attached->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
  auto& build = *static_cast<IPluginV3OneBuild*>(attached->getCapabilityInterface(PluginCapabilityType::kBUILD));

  std::vector<PluginTensorDesc> inputs, outputs;
  std::vector<DynamicPluginTensorDesc> ranges;
  Buffers sources, targets;
  std::vector<void const*> input_pointers;
  std::vector<void*> output_pointers;
  auto const add_input = [&](int positions) {
    inputs.push_back(input(node, positions, precision));
    Dims const& shape = inputs.back().dims;
    ranges.push_back({inputs.back(), shape, shape, shape});
    sources.push_back(std::make_unique<Buffer>(std::size_t{4} * node.maps * positions * kChannels));
    input_pointers.push_back(sources.back()->pointer);
  };
  auto const add_output = [&](int positions) {
    outputs.push_back(tensor({node.pairs(), positions}, DataType::kFLOAT, TensorFormat::kLINEAR));
    targets.push_back(std::make_unique<Buffer>(sizeof(float) * node.pairs() * positions));
    output_pointers.push_back(targets.back()->pointer);
  };
  for (auto const& [rows, columns] : node.stages) {
    add_input(rows);
    if (node.frames == 0) add_input(columns);
    add_output(rows);
    if (node.mean_b) add_output(columns);
  }
  auto const input_count = static_cast<std::int32_t>(inputs.size());
  auto const output_count = static_cast<std::int32_t>(outputs.size());
  CHECK(build.getNbOutputs() == output_count);
  Buffer const workspace(build.getWorkspaceSize(ranges.data(), input_count, nullptr, output_count));
  CHECK(plugin.onShapeChange(inputs.data(), input_count, outputs.data(), output_count) == 0);

  cudaStream_t stream = nullptr;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  auto const enqueue = [&] {
    return plugin.enqueue(inputs.data(), outputs.data(), input_pointers.data(), output_pointers.data(),
                          workspace.pointer, stream);
  };
  std::vector<Values> contents(inputs.size());
  auto const fill = [&](unsigned seed) {
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      int count = 1;
      for (int d = 0; d < inputs[i].dims.nbDims; ++d) count *= static_cast<int>(inputs[i].dims.d[d]);
      contents[i] = values(count, ++seed);
      upload(*sources[i], contents[i], precision);
    }
  };
  auto const check = [&] {
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
    std::size_t source = 0, target = 0;
    for (auto const& [rows, columns] : node.stages) {
      Values const& a = contents[source++];
      Values const& b = node.frames == 0 ? contents[source++] : a;
      auto const [mean_a, mean_b] = reference(node, a, b, rows, columns);
      check_means(*targets[target++], mean_a);
      if (node.mean_b) check_means(*targets[target++], mean_b);
    }
  };
  fill(1);
  CHECK(enqueue() == 0);
  check();
#ifndef EMULATED
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal) == cudaSuccess);
  CHECK(enqueue() == 0);
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
  CHECK(cudaGraphInstantiate(&executable, graph, 0) == cudaSuccess);
  fill(7);
  CHECK(cudaGraphLaunch(executable, stream) == cudaSuccess);
  check();
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
#endif
  cudaStreamDestroy(stream);
}

}  // namespace

int main(int count, char** words) {
  if (count != 2) {
    std::printf("usage: plugin_execution_test LIBRARY\n");
    return 2;
  }
  int devices = 0;
  cudaError_t const error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess || devices == 0) {
    std::printf("SKIPPED: no GPU: %s\n", cudaGetErrorString(error));
    return 77;
  }
  void* const library = dlopen(words[1], RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    std::printf("%s\n", dlerror());
    return 2;
  }
  auto const get_creators =
      reinterpret_cast<IPluginCreatorInterface* const* (*)(std::int32_t&)>(dlsym(library, "getCreators"));
  std::int32_t creators = 0;
  IPluginCreatorInterface* const* const all = get_creators(creators);
  CHECK(creators == 3);
  int major = 0;
  CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) == cudaSuccess);
  std::vector<Precision> precisions = {{DataType::kFLOAT, false}, {DataType::kHALF, false}};
  if (major >= 8) {
    precisions.push_back({DataType::kFLOAT, true});
    precisions.push_back({DataType::kBF16, false});
  }
  std::vector<Node> const nodes = {{0, 0, 2, {{150, 70}}, true},
                                   {2, 3, 6, {{150, 150}, {40, 40}, {10, 10}, {5, 5}}, true},
                                   {2, 2, 4, {{40, 40}}, false},
                                   {2, 0, 2, {{150, 70}, {40, 10}}, false}};
  for (Node const& node : nodes) {
    auto& creator = *static_cast<IPluginCreatorV3One*>(all[node.creator]);
    CHECK(std::strcmp(creator.getPluginName(), node.creator == 0 ? "MeanCorrelation" : "MeanCorrelations") == 0);
    for (Precision const& precision : precisions) check_execution(creator, node, precision);
  }
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
