// What becomes of a tile's product: sums of its rows and columns after ReLU, or the volume itself.
#pragma once

#include "configuration.cuh"

namespace avsbg {

// Element e of accumulator [i][j] is the product of these two, counted from the warp's first query and the tile's first
// target.
__device__ __forceinline__ int query_of(int i, int e) { return i * 16 + e / 2 * 8 + threadIdx.x % 32 / 4; }
__device__ __forceinline__ int target_of(int j, int e) { return j * 8 + threadIdx.x % 4 * 2 + e % 2; }

// Applies ReLU and adds the product to the sums of this thread's rows and columns. kRagged leaves out what lies beyond
// `queries` rows (for the columns) and `targets` columns.
template <class Kernel, bool kRagged>
__device__ __forceinline__ void add_product(const typename Kernel::Accumulators& accumulators, int queries, int targets,
                                            float (&row_sums)[Kernel::kRowBlocks * 2],
                                            float (&column_sums)[Kernel::kColumnBlocks * 2]) {
#pragma unroll
  for (int j = 0; j < Kernel::kColumnBlocks; ++j) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float column = 0.0F;
#pragma unroll
      for (int row = 0; row < Kernel::kRowBlocks * 2; ++row) {
        float value = ptx::relu(accumulators[row / 2][j][row % 2 * 2 + e]);
        if (kRagged && target_of(j, e) >= targets) value = 0.0F;
        row_sums[row] += value;
        if (kRagged && query_of(row / 2, row % 2 * 2) >= queries) value = 0.0F;
        column += value;
      }
      column_sums[j * 2 + e] = column;
    }
  }
}

// Sums each column over the eight lanes that share it. Halving what each lane still carries takes 7 exchanges for eight
// columns instead of 24. Afterwards lane l holds columns l / 4 * (kCount / 8) and following of its kCount, in order.
template <int kDistance, int kCount>
__device__ __forceinline__ void sum_over_lanes(float (&columns)[kCount]) {
  constexpr int kHalf = kCount * kDistance / 32;
  const bool upper = (threadIdx.x & kDistance) != 0;
#pragma unroll
  for (int i = 0; i < kHalf; ++i) {
    const float give = upper ? columns[i] : columns[i + kHalf];
    const float keep = upper ? columns[i + kHalf] : columns[i];
    columns[i] = keep + __shfl_xor_sync(0xffffffffU, give, kDistance);
  }
  if constexpr (kDistance > 4) sum_over_lanes<kDistance / 2>(columns);
}

// Stores what sum_over_lanes left, by column of the tile.
template <int kCount>
__device__ __forceinline__ void store_columns(float* to, const float (&columns)[kCount]) {
  static_assert(kCount == 8 || kCount == 16);
  const int index = threadIdx.x % 32 / 4 * (kCount / 8);
  float* column = to + target_of(index / 2, index);
  if constexpr (kCount == 16) {
    ptx::store_shared(reinterpret_cast<float2*>(column), make_float2(columns[0], columns[1]));
  } else {
    ptx::store_shared(column, columns[0]);
  }
}

template <class Kernel>
__device__ __forceinline__ void store_volume(const typename Kernel::Accumulators& accumulators,
                                             const CorrelateArguments& args, std::int64_t pair, int first_query,
                                             int first_target) {
  const auto activate = [&args](float x) { return args.relu ? ptx::relu(x) : x; };
#pragma unroll
  for (int row = 0; row < Kernel::kRowBlocks * 2; ++row) {
    const int query = first_query + query_of(row / 2, row % 2 * 2);
    if (query >= args.p) continue;
    float* line = args.volume + (pair * args.p + query) * args.q;
#pragma unroll
    for (int j = 0; j < Kernel::kColumnBlocks; ++j) {
      const int target = first_target + target_of(j, 0);
      const float x = activate(accumulators[row / 2][j][row % 2 * 2]);
      const float y = activate(accumulators[row / 2][j][row % 2 * 2 + 1]);
      if (args.q % 2 == 0) {  // target is even: both lie inside or both outside, and the pair is aligned
        if (target < args.q) *reinterpret_cast<float2*>(line + target) = make_float2(x, y);
      } else {
        if (target < args.q) line[target] = x;
        if (target + 1 < args.q) line[target + 1] = y;
      }
    }
  }
}

}  // namespace avsbg
