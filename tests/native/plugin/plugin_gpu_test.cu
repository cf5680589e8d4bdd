// The plugin's run-time half on a GPU, without TensorRT: what an engine stored is loaded and attached to a context,
// shapes are announced, and enqueue runs on real memory, by itself and captured in a CUDA graph, against float64.
//
// Usage: plugin_gpu_test LIBRARY. Exits with 77 where there is no GPU.
#include <NvInferRuntime.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <dlfcn.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <vector>

namespace {

using namespace nvinfer1;

int failures = 0;

#define CHECK(condition)                                                  \
  do {                                                                    \
    if (!(condition)) {                                                   \
      std::printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
      ++failures;                                                         \
    }                                                                     \
  } while (false)

constexpr int kPairs = 2, kRows = 150, kColumns = 70, kChannels = 64;

PluginTensorDesc tensor(std::initializer_list<int> shape, DataType type) {
  PluginTensorDesc description{};
  for (int const size : shape) description.dims.d[description.dims.nbDims++] = size;
  description.type = type;
  description.format = TensorFormat::kLINEAR;
  return description;
}

struct Buffer {
  explicit Buffer(std::size_t bytes) { CHECK(cudaMalloc(&pointer, bytes > 0 ? bytes : 1) == cudaSuccess); }
  Buffer(Buffer const&) = delete;
  Buffer& operator=(Buffer const&) = delete;
  ~Buffer() { cudaFree(pointer); }
  void* pointer = nullptr;
};

// Small multiples of 1/8: exact in fp16, and so are the products' sums in fp32.
std::vector<float> values(int count, unsigned seed) {
  std::vector<float> made;
  for (int i = 0; i < count; ++i) {
    seed = seed * 1664525U + 1013904223U;
    made.push_back(static_cast<float>(static_cast<int>(seed >> 28) - 8) / 8.0F);
  }
  return made;
}

void upload(Buffer const& to, std::vector<float> const& from, DataType type) {
  std::vector<__half> halves(from.begin(), from.end());
  bool const half = type == DataType::kHALF;
  void const* const source = half ? static_cast<void const*>(halves.data()) : from.data();
  CHECK(cudaMemcpy(to.pointer, source, from.size() * (half ? 2 : 4), cudaMemcpyHostToDevice) == cudaSuccess);
}

std::vector<float> download(Buffer const& from, int count) {
  std::vector<float> result(count);
  CHECK(cudaMemcpy(result.data(), from.pointer, count * sizeof(float), cudaMemcpyDeviceToHost) == cudaSuccess);
  return result;
}

// The means over either side, one after the other.
std::vector<double> reference(std::vector<float> const& a, std::vector<float> const& b) {
  std::vector<double> means(kPairs * (kRows + kColumns));
  for (int n = 0; n < kPairs; ++n) {
    for (int p = 0; p < kRows; ++p) {
      for (int q = 0; q < kColumns; ++q) {
        double product = 0;
        for (int c = 0; c < kChannels; ++c)
          product += double{a[(n * kRows + p) * kChannels + c]} * b[(n * kColumns + q) * kChannels + c];
        if (product < 0) continue;
        means[n * kRows + p] += product / kColumns;
        means[kPairs * kRows + n * kColumns + q] += product / kRows;
      }
    }
  }
  return means;
}

void check_means(Buffer const& mean_a, Buffer const& mean_b, std::vector<double> const& expected) {
  std::vector<float> result = download(mean_a, kPairs * kRows);
  std::vector<float> const columns = download(mean_b, kPairs * kColumns);
  result.insert(result.end(), columns.begin(), columns.end());
  int wrong = 0;
  for (std::size_t i = 0; i < result.size(); ++i) wrong += !(std::abs(result[i] - expected[i]) < 1e-4);
  CHECK(wrong == 0);
  if (wrong > 0) std::printf("%d of %zu means are wrong\n", wrong, result.size());
}

void check_execution(IPluginCreatorV3One& creator, DataType type) {
  std::int32_t const on = 1, off = 0;
  PluginField const stored[] = {{"mean_b", &on, PluginFieldType::kINT32, 1},
                                {"tf32", &off, PluginFieldType::kINT32, 1}};
  PluginFieldCollection const fields{2, stored};
  std::unique_ptr<IPluginV3> const loaded{creator.createPlugin("node", &fields, TensorRTPhase::kRUNTIME)};
  CHECK(loaded != nullptr);
  auto const capability = [](IPluginV3& plugin, PluginCapabilityType kind) {
    return plugin.getCapabilityInterface(kind);
  };
  auto& prototype = *static_cast<IPluginV3OneRuntime*>(capability(*loaded, PluginCapabilityType::kRUNTIME));
  std::unique_ptr<IPluginV3> const attached{prototype.attachToContext(nullptr)};
  auto& plugin = *static_cast<IPluginV3OneRuntime*>(capability(*attached, PluginCapabilityType::kRUNTIME));
  auto& build = *static_cast<IPluginV3OneBuild*>(capability(*attached, PluginCapabilityType::kBUILD));

  PluginTensorDesc const inputs[] = {tensor({kPairs, kRows, kChannels}, type),
                                     tensor({kPairs, kColumns, kChannels}, type)};
  PluginTensorDesc const outputs[] = {tensor({kPairs, kRows}, DataType::kFLOAT),
                                      tensor({kPairs, kColumns}, DataType::kFLOAT)};
  DynamicPluginTensorDesc ranges[2] = {};
  for (int i = 0; i < 2; ++i) ranges[i] = {inputs[i], inputs[i].dims, inputs[i].dims, inputs[i].dims};
  std::size_t const element = type == DataType::kHALF ? 2 : 4;
  Buffer a(element * kPairs * kRows * kChannels), b(element * kPairs * kColumns * kChannels);
  Buffer mean_a(sizeof(float) * kPairs * kRows), mean_b(sizeof(float) * kPairs * kColumns);
  Buffer const workspace(build.getWorkspaceSize(ranges, 2, nullptr, 2));
  std::vector<float> const b_values = values(kPairs * kColumns * kChannels, 1);
  upload(b, b_values, type);
  void const* const sources[] = {a.pointer, b.pointer};
  void* const targets[] = {mean_a.pointer, mean_b.pointer};
  CHECK(plugin.onShapeChange(inputs, 2, outputs, 2) == 0);

  cudaStream_t stream = nullptr;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  auto const enqueue = [&] { return plugin.enqueue(inputs, outputs, sources, targets, workspace.pointer, stream); };
  std::vector<float> first = values(kPairs * kRows * kChannels, 2);
  upload(a, first, type);
  CHECK(enqueue() == 0);
  CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
  check_means(mean_a, mean_b, reference(first, b_values));

  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal) == cudaSuccess);
  CHECK(enqueue() == 0);
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
  CHECK(cudaGraphInstantiate(&executable, graph, 0) == cudaSuccess);
  first = values(kPairs * kRows * kChannels, 3);
  upload(a, first, type);
  CHECK(cudaGraphLaunch(executable, stream) == cudaSuccess);
  CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
  check_means(mean_a, mean_b, reference(first, b_values));
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
}

}  // namespace

int main(int count, char** words) {
  if (count != 2) {
    std::printf("usage: plugin_gpu_test LIBRARY\n");
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
  auto& means = *static_cast<IPluginCreatorV3One*>(get_creators(creators)[0]);
  CHECK(creators == 2 && std::strcmp(means.getPluginName(), "MeanCorrelation") == 0);
  for (DataType const type : {DataType::kFLOAT, DataType::kHALF}) check_execution(means, type);
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
