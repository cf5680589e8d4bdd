// The content of a 16-byte unit of a row, and its multiplication by a warp: the one place that knows the data types.
#pragma once

#include "ptx.cuh"

namespace avsbg {

// Tensor-core operands. A step is two units (32 bytes) of channels: 16 of fp16 and bf16, 8 of tf32. In both cases
// ldmatrix delivers exactly the registers that the mma expects, so nothing but `multiply` differs.
struct Fp16 {
  static constexpr bool kTensorCore = true;
  __device__ static void prepare(std::uint32_t (&)[4]) {}
  __device__ static void multiply(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
    ptx::mma_f16(d, a, b);
  }
};

struct Bf16 {
  static constexpr bool kTensorCore = true;
  __device__ static void prepare(std::uint32_t (&)[4]) {}
  __device__ static void multiply(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
    ptx::mma_bf16(d, a, b);
  }
};

struct Tf32 {
  static constexpr bool kTensorCore = true;
  __device__ static void prepare(std::uint32_t (&fragment)[4]) {
#pragma unroll
    for (auto& bits : fragment) bits = ptx::to_tf32(bits);
  }
  __device__ static void multiply(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
    ptx::mma_tf32(d, a, b);
  }
};

// Ordinary fp32 multiply-add. Each thread owns the same elements of the product as with tensor cores, so that
// everything after the product is shared.
struct Fp32 {
  static constexpr bool kTensorCore = false;
};

}  // namespace avsbg
