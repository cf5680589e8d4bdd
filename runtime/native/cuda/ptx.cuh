// The instructions that C++ has no name for, one thin function each, and what differs between architectures.
// Source of every fact: NVIDIA's "PTX ISA", under the name of each instruction (cp.async, ldmatrix, mma, cvt, max).
//
// Compiled by a host compiler, the leaf instructions come from <emulated_ptx.h>, which the tests provide; everything
// else in this folder is the same source for both.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

namespace avsbg::ptx {

#ifdef __CUDACC__

// One block's shared memory, seen as one struct.
#define AVSBG_SHARED(Type, name) __shared__ Type name
// Of a kernel's argument: it may be pointed to where it is, without a copy for each thread.
#define AVSBG_GRID_CONSTANT __grid_constant__

// Every access to shared memory that is not one of the instructions below, so that the emulation sees all of them.
template <class T>
__device__ __forceinline__ T load_shared(const T* from) {
  return *from;
}
template <class T>
__device__ __forceinline__ void store_shared(T* to, T value) {
  *to = value;
}

__device__ __forceinline__ std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ __forceinline__ void cp_async_16(uint4* to, const uint4* from, bool inside) {
  const int bytes = inside ? 16 : 0;  // what is not read is filled with zeros
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes)
               : "memory");
}

__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most kPending of this thread's groups are under way.
template <int kPending>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Four 8 x 8 matrices of 16-bit elements. Lanes 8i to 8i + 7 give the addresses of the 16-byte rows of matrix i; of
// each matrix, lane l receives bytes 4 (l % 4) to 4 (l % 4) + 3 of row l / 4.
__device__ __forceinline__ void ldmatrix_x4(std::uint32_t (&r)[4], const uint4* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

// d [16, 8] += a [16, K] * b [8, K] transposed, K being 32 bytes wide (16 bytes for k8_f16), in fp32.
__device__ __forceinline__ void mma_k8_f16(float (&d)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t b) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a0), "r"(a1), "r"(b));
}

#define AVSBG_MMA(name, shape_and_types)                                                                      \
  __device__ __forceinline__ void name(float(&d)[4], const std::uint32_t(&a)[4], const std::uint32_t(&b)[2]) { \
    asm volatile("mma.sync.aligned." shape_and_types                                                          \
                 " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                           \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                             \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                         \
  }
AVSBG_MMA(mma_k16_f16, "m16n8k16.row.col.f32.f16.f16.f32")
AVSBG_MMA(mma_k16_bf16, "m16n8k16.row.col.f32.bf16.bf16.f32")
AVSBG_MMA(mma_k8_tf32, "m16n8k8.row.col.f32.tf32.tf32.f32")
#undef AVSBG_MMA

// fp32 to tf32, nearest, ties away from zero. The tensor cores would otherwise drop the low bits.
__device__ __forceinline__ std::uint32_t round_to_tf32(std::uint32_t bits) {
  std::uint32_t rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(__uint_as_float(bits)));
  return rounded;
}

// The same value, of which the compiler no longer knows how it was computed: it stays in a register.
__device__ __forceinline__ int keep(int value) {
  asm volatile("" : "+r"(value));
  return value;
}
__device__ __forceinline__ std::int64_t keep(std::int64_t value) {
  asm volatile("" : "+l"(value));
  return value;
}

// Programmatic dependent launch (CUDA programming guide): a kernel that was launched to overlap with the one before it
// waits for its results, and is let start when all blocks of that one have come so far. Otherwise neither does anything.
// Code for less than compute capability 9.0 has no such wait, and must not be launched so (correlation.cu).
__device__ __forceinline__ void wait_for_previous_kernel() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void release_dependents() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

#else
#define AVSBG_GRID_CONSTANT
#include <emulated_ptx.h>
#endif

// What follows is built from the leaves, by architecture. __CUDA_ARCH__ is undefined in the host pass, which only
// needs the declarations to parse.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

__device__ __forceinline__ void copy_16(uint4* to, const uint4* from, bool inside) { cp_async_16(to, from, inside); }
__device__ __forceinline__ void copy_commit() { cp_async_commit(); }
// A macro, so that the emulation sees the line that waits and can leave out that one wait (tests/native).
#define AVSBG_COPY_WAIT(pending) ::avsbg::ptx::cp_async_wait<pending>()

__device__ __forceinline__ void mma_f16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  mma_k16_f16(d, a, b);
}
__device__ __forceinline__ void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  mma_k16_bf16(d, a, b);
}
__device__ __forceinline__ void mma_tf32(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  mma_k8_tf32(d, a, b);
}
__device__ __forceinline__ std::uint32_t to_tf32(std::uint32_t bits) { return round_to_tf32(bits); }

#else  // sm_75: no asynchronous copy, and tensor cores for fp16 only, eight channels at a time

__device__ __forceinline__ void copy_16(uint4* to, const uint4* from, bool inside) {
  store_shared(to, inside ? *from : make_uint4(0, 0, 0, 0));
}
__device__ __forceinline__ void copy_commit() {}
#define AVSBG_COPY_WAIT(pending) ((void)0)

__device__ __forceinline__ void mma_f16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  mma_k8_f16(d, a[0], a[1], b[0]);
  mma_k8_f16(d, a[2], a[3], b[1]);
}
// why_declined keeps these two from being launched here; nothing may run in their place.
__device__ __forceinline__ void mma_bf16(float (&)[4], const std::uint32_t (&)[4], const std::uint32_t (&)[2]) {
  __trap();
}
__device__ __forceinline__ void mma_tf32(float (&)[4], const std::uint32_t (&)[4], const std::uint32_t (&)[2]) {
  __trap();
}
__device__ __forceinline__ std::uint32_t to_tf32(std::uint32_t bits) { return bits; }

#endif

// max(x, 0) that keeps NaN, as torch.relu does; fmaxf would make a 0 of it.
__device__ __forceinline__ float relu(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800 && defined(__CUDACC__)
  float y;
  asm("max.NaN.f32 %0, %1, 0f00000000;" : "=f"(y) : "f"(x));
  return y;
#else
  return x < 0.0F ? 0.0F : x;
#endif
}

}  // namespace avsbg::ptx
