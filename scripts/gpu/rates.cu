// The rate of the tensor-core instruction that the kernels are made of, mma.sync.m16n8k16 with fp32 accumulation: what
// share of the data sheet's peak it reaches at all, so whether a kernel is short of the instruction or of issue slots.
// Prints JSON Lines. Eight products in flight for each of four warps on each of `blocks` blocks of a multiprocessor.
#include <cstdio>
#include <string>

#include <cuda_runtime.h>

#include "ptx.cuh"

namespace {

constexpr int kThreads = 128, kProducts = 8, kRounds = 4096;
constexpr double kOperations = 2.0 * 16 * 8 * 16;  // of one instruction

template <bool kBrain>
__global__ void multiply(float* sink) {
  float d[kProducts][4] = {};
  std::uint32_t a[4] = {threadIdx.x, 1, 2, 3};
  std::uint32_t b[2] = {threadIdx.x, 5};
  for (int round = 0; round < kRounds; ++round) {
#pragma unroll
    for (int product = 0; product < kProducts; ++product) {
      if constexpr (kBrain) {
        avsbg::ptx::mma_k16_bf16(d[product], a, b);
      } else {
        avsbg::ptx::mma_k16_f16(d[product], a, b);
      }
    }
  }
  float sum = 0.0F;
  for (const auto& product : d)
    for (float element : product) sum += element;
  if (sum == 12345.0F) *sink = sum;  // never, but the compiler does not know
}

bool check(cudaError_t error, const char* doing) {
  if (error == cudaSuccess) return true;
  std::fprintf(stderr, "%s failed: %s\n", doing, cudaGetErrorString(error));
  return false;
}

template <bool kBrain>
bool measure(const char* name, int blocks, int multiprocessors) {
  float* sink = nullptr;
  cudaEvent_t start = nullptr, end = nullptr;
  if (!check(cudaMalloc(&sink, sizeof(float)), "cudaMalloc") || !check(cudaEventCreate(&start), "making an event") ||
      !check(cudaEventCreate(&end), "making an event"))
    return false;
  float best = 1e30F;
  for (int run = 0; run < 5; ++run) {
    cudaEventRecord(start);
    multiply<kBrain><<<blocks * multiprocessors, kThreads>>>(sink);
    cudaEventRecord(end);
    if (!check(cudaEventSynchronize(end), "the kernel")) return false;
    float milliseconds = 0;
    cudaEventElapsedTime(&milliseconds, start, end);
    best = milliseconds < best ? milliseconds : best;
  }
  const double products = double{kRounds} * kProducts * (kThreads / 32) * blocks * multiprocessors;
  std::printf("{\"kind\": \"rate\", \"name\": \"mma.sync %s, %d blocks\", \"tflops\": %.1f}\n", name, blocks,
              products * kOperations / best * 1e-9);
  cudaFree(sink);
  cudaEventDestroy(start);
  cudaEventDestroy(end);
  return true;
}

}  // namespace

int main() {
  int device = 0, multiprocessors = 0;
  if (!check(cudaGetDevice(&device), "asking for the device") ||
      !check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), "asking the device"))
    return 3;
  for (int blocks = 1; blocks <= 4; ++blocks)
    if (!measure<false>("fp16", blocks, multiprocessors) || !measure<true>("bf16", blocks, multiprocessors)) return 1;
  return 0;
}
