// The uses of a tile's product: sums of its rows and columns after ReLU, or the volume itself.
#pragma once

#include "configuration.cuh"

namespace avsbg {

// Element e of accumulator [i][j] is the product of these two, counted from the tile's first target and the warp's
// first query.
__device__ __forceinline__ int target_of(int i, int e) { return i * 16 + e / 2 * 8 + threadIdx.x % 32 / 4; }
__device__ __forceinline__ int query_of(int j, int e) { return j * 8 + threadIdx.x % 4 * 2 + e % 2; }

// Applies ReLU, adds the product to the sums of this thread's queries and sums up its targets. kRagged leaves out what
// lies beyond `targets`, and beyond `queries` for the sums of targets.
template <class Kernel, bool kRagged>
__device__ __forceinline__ void add_product(const typename Kernel::Accumulators& accumulators, int queries, int targets,
                                            float (&query_sums)[Kernel::kQueryBlocks * 2],
                                            float (&target_sums)[Kernel::kTargetBlocks * 2]) {
#pragma unroll
  for (int row = 0; row < Kernel::kTargetBlocks * 2; ++row) {
#pragma unroll
    for (int column = 0; column < Kernel::kQueryBlocks * 2; ++column) {
      const int e = row % 2 * 2 + column % 2;
      float value = ptx::relu(accumulators[row / 2][column / 2][e]);
      if (kRagged && target_of(row / 2, e) >= targets) value = 0.0F;
      query_sums[column] += value;
      if (kRagged && query_of(column / 2, e) >= queries) value = 0.0F;
      target_sums[row] = column == 0 ? value : target_sums[row] + value;
    }
  }
}

// Sums each of kCount values over the four lanes that share a target. Halving what each lane still carries takes 3
// exchanges for four values instead of 8. Afterwards lane l holds the values l % 4 * (kCount / 4) and following.
template <int kDistance, int kCount>
__device__ __forceinline__ void sum_over_lanes(float (&values)[kCount]) {
  constexpr int kHalf = kCount * kDistance / 4;
  const bool upper = (threadIdx.x & kDistance) != 0;
#pragma unroll
  for (int i = 0; i < kHalf; ++i) {
    const float give = upper ? values[i] : values[i + kHalf];
    const float keep = upper ? values[i + kHalf] : values[i];
    values[i] = keep + __shfl_xor_sync(0xffffffffU, give, kDistance);
  }
  if constexpr (kDistance > 1) sum_over_lanes<kDistance / 2>(values);
}

// The place of a target's sum in its warp's row of shared memory: the lanes of a store fall on different banks.
__device__ __forceinline__ int column_index(int target) { return target ^ (target >> 5 & 1) * 8; }

// Stores what sum_over_lanes left.
template <int kCount>
__device__ __forceinline__ void store_columns(float* to, const float (&values)[kCount]) {
  static_assert(kCount == 4 || kCount == 8);
#pragma unroll
  for (int i = 0; i < kCount / 4; ++i) {
    const int row = threadIdx.x % 4 * (kCount / 4) + i;
    ptx::store_shared(to + column_index(target_of(row / 2, row % 2 * 2)), values[i]);
  }
}

template <class Kernel>
__device__ __forceinline__ void store_volume(const typename Kernel::Accumulators& accumulators, const Task& task,
                                             bool relu, std::int64_t pair, int first_query, int first_target) {
#pragma unroll
  for (int column = 0; column < Kernel::kQueryBlocks * 2; ++column) {
    const int query = first_query + query_of(column / 2, column % 2);
    if (query >= task.p) continue;
    float* line = task.volume + (pair * task.p + query) * task.q;
#pragma unroll
    for (int row = 0; row < Kernel::kTargetBlocks * 2; ++row) {
      const int target = first_target + target_of(row / 2, row % 2 * 2);
      const float value = accumulators[row / 2][column / 2][row % 2 * 2 + column % 2];
      if (target < task.q) line[target] = relu ? ptx::relu(value) : value;
    }
  }
}

}  // namespace avsbg
