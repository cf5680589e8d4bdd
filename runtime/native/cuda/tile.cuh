// From device memory through shared memory to the product of a tile.
#pragma once

#include "configuration.cuh"

namespace avsbg {

// Where unit `unit` of row `row` lies in a slot: eight neighbouring rows of one unit, and eight neighbouring units of
// one row, fall on different groups of four banks.
template <int kUnits>
__device__ __forceinline__ int slot_index(int row, int unit) {
  static_assert(kUnits == 4 || kUnits == 16);
  return row * kUnits + (unit ^ (kUnits == 4 ? (row >> 1) & 3 : row & 7));
}

// Copies kRows rows from `first_row`, kUnits units from `first_unit`, of a map of `rows` x `units`; zeros outside it.
template <int kRows, int kUnits>
__device__ __forceinline__ void copy_tile(uint4* slot, const uint4* map, int first_row, int rows, int first_unit,
                                          int units) {
  static_assert(kThreads % kUnits == 0 && kRows * kUnits % kThreads == 0);
  const int unit = static_cast<int>(threadIdx.x) % kUnits;
#pragma unroll
  for (int i = 0; i < kRows * kUnits / kThreads; ++i) {
    const int row = static_cast<int>(threadIdx.x) / kUnits + i * (kThreads / kUnits);
    const bool inside = first_row + row < rows && first_unit + unit < units;
    const uint4* from = map + (inside ? static_cast<std::int64_t>(first_row + row) * units + first_unit + unit : 0);
    ptx::copy_16(slot + slot_index<kUnits>(row, unit), from, inside);
  }
}

// 16 rows x 2 units as the first factor of an mma.
template <class Operand, int kUnits>
__device__ __forceinline__ void load_queries(std::uint32_t (&fragment)[4], const uint4* slot, int first_row, int unit) {
  const int lane = threadIdx.x % 32;
  ptx::ldmatrix_x4(fragment, slot + slot_index<kUnits>(first_row + lane % 16, unit + lane / 16));
  Operand::prepare(fragment);
}

// 16 rows x 2 units as the second factor of two mma: registers 0 and 1 for the first eight rows, 2 and 3 for the rest.
template <class Operand, int kUnits>
__device__ __forceinline__ void load_targets(std::uint32_t (&fragment)[4], const uint4* slot, int first_row, int unit) {
  const int lane = threadIdx.x % 32;
  const int row = first_row + lane % 8 + lane / 16 * 8;
  ptx::ldmatrix_x4(fragment, slot + slot_index<kUnits>(row, unit + lane / 8 % 2));
  Operand::prepare(fragment);
}

// accumulators += queries * targets, for two units of channels.
template <class Kernel>
__device__ __forceinline__ void multiply_step(typename Kernel::Accumulators& accumulators,
                                              const std::uint32_t (&queries)[Kernel::kRowBlocks][4], const uint4* slot,
                                              int unit) {
  using Operand = typename Kernel::Operand;
#pragma unroll
  for (int j = 0; j < Kernel::kColumnBlocks; j += 2) {
    std::uint32_t fragment[4];
    load_targets<Operand, Kernel::kUnits>(fragment, slot, Kernel::kTargetRow + j * 8, unit);
    const std::uint32_t first[2] = {fragment[0], fragment[1]};
    const std::uint32_t second[2] = {fragment[2], fragment[3]};
#pragma unroll
    for (int i = 0; i < Kernel::kRowBlocks; ++i) {
      Operand::multiply(accumulators[i][j], queries[i], first);
      Operand::multiply(accumulators[i][j + 1], queries[i], second);
    }
  }
}

// The same on the ordinary cores, for one chunk of fp32 channels.
template <class Kernel>
__device__ __forceinline__ void multiply_fp32(typename Kernel::Accumulators& accumulators, const uint4* slot) {
  const int lane = threadIdx.x % 32;
  const int first_query = threadIdx.x / 32 * kWarpQueries + lane / 4;
  const auto load = [slot](int row, int unit) {
    return ptx::load_shared(reinterpret_cast<const float4*>(slot + slot_index<Kernel::kUnits>(row, unit)));
  };
#pragma unroll
  for (int unit = 0; unit < Kernel::kUnits; ++unit) {
    float4 query[Kernel::kRowBlocks * 2];
#pragma unroll
    for (int i = 0; i < Kernel::kRowBlocks * 2; ++i) query[i] = load(first_query + i * 8, unit);
#pragma unroll
    for (int j = 0; j < Kernel::kColumnBlocks * 2; ++j) {
      const float4 target = load(Kernel::kTargetRow + j / 2 * 8 + lane % 4 * 2 + j % 2, unit);
#pragma unroll
      for (int i = 0; i < Kernel::kRowBlocks * 2; ++i) {
        float& sum = accumulators[i / 2][j / 2][i % 2 * 2 + j % 2];
        sum = fmaf(query[i].x, target.x, sum);
        sum = fmaf(query[i].y, target.y, sum);
        sum = fmaf(query[i].z, target.z, sum);
        sum = fmaf(query[i].w, target.w, sum);
      }
    }
  }
}

}  // namespace avsbg
