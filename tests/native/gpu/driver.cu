// Runs the launchers of runtime/native/cuda on a GPU, without Python: for compute-sanitizer, ncu and scripts/on-gpu.sh.
//
//     driver mean DTYPE N P Q C SM_COUNT WITH_MEAN_B       < a b  > line mean_a [mean_b]
//     driver volume DTYPE N P Q C SM_COUNT RELU            < a b  > line volume
//     driver group DTYPE SM_COUNT WITH_MEAN_B [N P Q C PAIRS_PER_CLIP]...
//                                                          < a b of each  > line mean_a [mean_b] of each
//     driver random mean|volume|group ...                  > line; the inputs are small integers made here
//
// As the emulation's main.cpp: DTYPE is the number of DataType, tensors are raw bytes, `line` is one line of JSON. With
// SM_COUNT = 0 the device is as it is. With PAIRS_PER_CLIP one tensor of clips takes the place of a and b. Buffers have
// exactly the size that the contract says, and outputs and workspace are not set before the launch. Compiled with
// -DFAULT_MEMCHECK or -DFAULT_INITCHECK it breaks the contract, for the tool of that name to find; the first of these
// leaves out the last frame of a group's clips.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <cuda_runtime.h>

#include "correlation.h"
#include "plan.h"

namespace {

#ifdef FAULT_MEMCHECK
constexpr std::size_t kMissing = sizeof(float);  // of mean_a, or of the volume
constexpr std::size_t kMissingFrames = 1;
#else
constexpr std::size_t kMissing = 0;
constexpr std::size_t kMissingFrames = 0;
#endif

void check(cudaError_t error, const char* doing) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s failed: %s\n", doing, cudaGetErrorString(error));
  std::exit(3);
}

// Device memory of exactly this size; a null pointer for none.
struct Buffer {
  explicit Buffer(std::size_t bytes) : bytes(bytes) {
    if (bytes > 0) check(cudaMalloc(&pointer, bytes), "cudaMalloc");
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { cudaFree(pointer); }
  float* floats() const { return static_cast<float*>(pointer); }

  void fill(const std::vector<unsigned char>& data) {
    if (bytes > 0) check(cudaMemcpy(pointer, data.data(), bytes, cudaMemcpyHostToDevice), "copying to the device");
  }
  void print() const {
    std::vector<unsigned char> data(bytes);
    if (bytes > 0) check(cudaMemcpy(data.data(), pointer, bytes, cudaMemcpyDeviceToHost), "copying to the host");
    std::fwrite(data.data(), 1, bytes, stdout);
  }

  std::size_t bytes;
  void* pointer = nullptr;
};

// Elements of the four types whose value is -1, 0, 1 or 2: any finite pattern serves the tools that look at addresses.
std::vector<unsigned char> small_integers(std::size_t count, avsbg::DataType dtype) {
  const bool wide = dtype == avsbg::DataType::kFloat32 || dtype == avsbg::DataType::kTf32;
  const std::uint32_t words[] = {0xbf800000U, 0U, 0x3f800000U, 0x40000000U};
  const std::uint16_t halves[] = {0xbc00, 0, 0x3c00, 0x4000}, brains[] = {0xbf80, 0, 0x3f80, 0x4000};
  std::vector<unsigned char> data(count * (wide ? 4 : 2));
  std::uint32_t state = 1;
  for (std::size_t i = 0; i < count; ++i) {
    state = state * 1664525U + 1013904223U;
    const unsigned pick = state >> 30;
    if (wide) {
      std::memcpy(&data[i * 4], &words[pick], 4);
    } else {
      std::memcpy(&data[i * 2], dtype == avsbg::DataType::kFloat16 ? &halves[pick] : &brains[pick], 2);
    }
  }
  return data;
}

std::vector<unsigned char> input(bool random, std::size_t count, avsbg::DataType dtype) {
  std::vector<unsigned char> data = small_integers(count, dtype);
  if (!random && std::fread(data.data(), 1, data.size(), stdin) != data.size()) {
    std::fprintf(stderr, "standard input ended early\n");
    std::exit(2);
  }
  return data;
}

// The result of a launch: a line, and what `outputs` hold.
int finish(const std::string& error, bool random, cudaStream_t stream, const std::vector<const Buffer*>& outputs) {
  check(cudaStreamSynchronize(stream), "the kernel");
  std::printf("{\"error\": \"%s\", \"shared\": {}}\n", error.c_str());
  if (!random)
    for (const Buffer* output : outputs) output->print();
  check(cudaStreamDestroy(stream), "destroying the stream");
  return error.empty() ? 0 : 1;
}

cudaStream_t make_stream() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream");
  return stream;
}

avsbg::Device device_with(int sm_count) {
  avsbg::Device device;
  const std::string error = avsbg::query_device(device);
  if (!error.empty()) {
    std::fprintf(stderr, "%s\n", error.c_str());
    std::exit(3);
  }
  if (sm_count != 0) device.sm_count = sm_count;
  return device;
}

int correlate(bool random, bool mean, char** words) {
  avsbg::CorrelationProblem problem;
  problem.dtype = static_cast<avsbg::DataType>(std::atoi(words[0]));
  problem.n = std::atoll(words[1]);
  problem.p = std::atoll(words[2]);
  problem.q = std::atoll(words[3]);
  problem.c = std::atoll(words[4]);
  const avsbg::Device device = device_with(std::atoi(words[5]));
  const bool flag = std::atoi(words[6]) != 0;
  const auto rows = static_cast<std::size_t>(problem.n * problem.p);
  const auto columns = static_cast<std::size_t>(problem.n * problem.q);
  const auto channels = static_cast<std::size_t>(problem.c);

  const std::vector<unsigned char> a_data = input(random, rows * channels, problem.dtype);
  const std::vector<unsigned char> b_data = input(random, columns * channels, problem.dtype);
  Buffer a(a_data.size()), b(b_data.size());
  a.fill(a_data);
#ifndef FAULT_INITCHECK
  b.fill(b_data);
#endif
  const cudaStream_t stream = make_stream();
  const std::size_t outputs = mean ? rows : rows * static_cast<std::size_t>(problem.q);
  Buffer first(outputs * sizeof(float) - (outputs > 0 ? kMissing : 0));
  Buffer second(mean && flag ? columns * sizeof(float) : 0);
  const avsbg::CorrelationTask task = {problem, a.pointer, b.pointer, first.floats(), second.floats()};
  Buffer workspace(mean ? avsbg::mean_correlations_workspace_size(&task, 1, flag) : 0);
  const std::string error =
      mean ? avsbg::launch_mean_correlations(&task, 1, device, workspace.pointer, stream)
           : avsbg::launch_correlation_volume(problem, device, a.pointer, b.pointer, first.floats(), flag, stream);
  return finish(error, random, stream, {&first, &second});
}

int correlate_group(bool random, int count, char** words) {
  const auto dtype = static_cast<avsbg::DataType>(std::atoi(words[0]));
  const avsbg::Device device = device_with(std::atoi(words[1]));
  const bool flag = std::atoi(words[2]) != 0;
  std::vector<std::unique_ptr<Buffer>> maps, means;
  std::vector<const Buffer*> outputs;
  std::vector<avsbg::CorrelationTask> tasks;
  const auto add_map = [&](std::size_t elements, std::size_t missing) {
    std::vector<unsigned char> data = input(random, elements, dtype);
    data.resize(data.size() - missing * static_cast<std::size_t>(avsbg::element_size(dtype)));
    maps.push_back(std::make_unique<Buffer>(data.size()));
    maps.back()->fill(data);
    return maps.back()->pointer;
  };
  for (int i = 3; i + 4 < count; i += 5) {
    const std::int64_t n = std::atoll(words[i]), p = std::atoll(words[i + 1]), q = std::atoll(words[i + 2]);
    const std::int64_t c = std::atoll(words[i + 3]), pairs_per_clip = std::atoll(words[i + 4]);
    avsbg::CorrelationTask task;
    task.problem = {n, p, q, c, dtype};
    task.pairs_per_clip = pairs_per_clip;
    const auto frame = static_cast<std::size_t>(p * c);
    if (pairs_per_clip > 0) {
      task.a = add_map(static_cast<std::size_t>(n + n / pairs_per_clip) * frame, kMissingFrames * frame);
      task.b = static_cast<const char*>(task.a) + p * c * avsbg::element_size(dtype);
    } else {
      task.a = add_map(static_cast<std::size_t>(n) * frame, 0);
      task.b = add_map(static_cast<std::size_t>(n * q * c), 0);
    }
    for (const std::int64_t positions : {p, flag ? q : 0}) {
      means.push_back(std::make_unique<Buffer>(static_cast<std::size_t>(n * positions) * sizeof(float)));
      outputs.push_back(means.back().get());
    }
    task.mean_a = outputs[outputs.size() - 2]->floats();
    task.mean_b = outputs.back()->floats();
    tasks.push_back(task);
  }
  const int number = static_cast<int>(tasks.size());
  const cudaStream_t stream = make_stream();
  Buffer workspace(avsbg::mean_correlations_workspace_size(tasks.data(), number, flag));
  const std::string error =
      avsbg::launch_mean_correlations(tasks.data(), number, device, workspace.pointer, stream);
  return finish(error, random, stream, outputs);
}

}  // namespace

int main(int count, char** words) {
  const bool random = count > 1 && std::strcmp(words[1], "random") == 0;
  if (random) {
    ++words;
    --count;
  }
  const std::string what = count > 1 ? words[1] : "";
  if (count == 9 && (what == "mean" || what == "volume")) return correlate(random, what == "mean", words + 2);
  if (what == "group" && count > 9 && count % 5 == 0) return correlate_group(random, count - 2, words + 2);
  std::fprintf(stderr, "usage: see the top of driver.cu\n");
  return 2;
}
