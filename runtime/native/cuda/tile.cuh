// From device memory through shared memory to the product of a tile.
#pragma once

#include "configuration.cuh"

namespace avsbg {

// The place of unit `unit` of row `row` in a slot: eight neighbouring rows of one unit, and eight neighbouring units of
// one row, fall on different groups of four banks.
template <int kUnits>
__device__ __forceinline__ int slot_index(int row, int unit) {
  static_assert(kUnits == 4 || kUnits == 8 || kUnits == 16);
  return row * kUnits + (unit ^ (kUnits == 4 ? (row >> 1) & 3 : row & 7));
}

// Copies tiles of rows that follow each other in a map into slots; zeros outside the map and its channels. A thread
// copies the same unit of every kStep-th row.
template <int kUnits>
class RowCopier {
 public:
  static constexpr int kStep = kThreads / kUnits;
  static_assert(kThreads % kUnits == 0 && kStep % 8 == 0, "all rows of a thread have their units in one order");

  __device__ RowCopier()
      : to_(ptx::keep(slot_index<kUnits>(static_cast<int>(threadIdx.x) / kUnits, threadIdx.x % kUnits))) {}

  // Begins with the row `first_row` of a map of `rows` x `units`, at the unit `first_unit`.
  __device__ void begin(const uint4* map, int first_row, int rows, int first_unit, int units) {
    const int unit = first_unit + static_cast<int>(threadIdx.x) % kUnits;
    const int row = first_row + static_cast<int>(threadIdx.x) / kUnits;
    rows_left_ = unit < units ? rows - row : 0;
    from_ = reinterpret_cast<std::uintptr_t>(map + (static_cast<std::int64_t>(row) * units + unit));
    stride_ = static_cast<std::uint32_t>(kStep * units * sizeof(uint4));
  }

  // Copies the next kRows rows. What is outside is not read: its address is only computed.
  template <int kRows>
  __device__ void copy(uint4* slot) {
    static_assert(kRows % kStep == 0);
#pragma unroll
    for (int i = 0; i < kRows / kStep; ++i) {
      ptx::copy_16(slot + to_ + i * kStep * kUnits, reinterpret_cast<const uint4*>(from_), i * kStep < rows_left_);
      from_ += stride_;
    }
    rows_left_ -= kRows;
  }

 private:
  int to_;
  std::uintptr_t from_ = 0;
  std::uint32_t stride_ = 0;
  int rows_left_ = 0;
};

// The places of this lane's rows of the first factor in a slot, for an even unit. The exclusive-or of slot_index changes
// the lowest three bits of a unit alone, so that four numbers serve all units and rows; they stay in registers.
template <int kUnits>
class FirstFactor {
 public:
  __device__ FirstFactor() {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < kPatterns; ++i) pattern_[i] = ptx::keep(slot_index<kUnits>(lane % 16, 2 * i + lane / 16));
  }

  // 16 rows x 2 units as the first factor of an mma.
  template <class Operand>
  __device__ void load(std::uint32_t (&fragment)[4], const uint4* slot, int first_row, int unit) const {
    ptx::ldmatrix_x4(fragment, slot + pattern_[unit / 2 % kPatterns] + (first_row * kUnits + unit / 8 * 8));
    Operand::prepare(fragment);
  }

 private:
  static constexpr int kPatterns = kUnits < 8 ? kUnits / 2 : 4;
  int pattern_[kPatterns];
};

// 16 rows x 2 units as the second factor of two mma: registers 0 and 1 for the first eight rows, 2 and 3 for the rest.
template <class Operand, int kUnits>
__device__ __forceinline__ void load_second(std::uint32_t (&fragment)[4], const uint4* slot, int first_row, int unit) {
  const int lane = threadIdx.x % 32;
  const int row = first_row + lane % 8 + lane / 16 * 8;
  ptx::ldmatrix_x4(fragment, slot + slot_index<kUnits>(row, unit + lane / 8 % 2));
  Operand::prepare(fragment);
}

// The warp's queries, two units of channels.
template <class Kernel>
using Queries = std::uint32_t[Kernel::kQueryBlocks / 2][4];

template <class Kernel>
__device__ __forceinline__ void load_queries(Queries<Kernel>& queries, const uint4* slot, int first_row, int unit) {
#pragma unroll
  for (int j = 0; j < Kernel::kQueryBlocks / 2; ++j)
    load_second<typename Kernel::Operand, Kernel::kUnits>(queries[j], slot, first_row + j * 16, unit);
}

// accumulators += targets * queries, for two units of channels.
template <class Kernel>
__device__ __forceinline__ void multiply_step(typename Kernel::Accumulators& accumulators,
                                              const Queries<Kernel>& queries,
                                              const FirstFactor<Kernel::kUnits>& targets, const uint4* slot, int unit) {
  using Operand = typename Kernel::Operand;
#pragma unroll
  for (int i = 0; i < Kernel::kTargetBlocks; ++i) {
    std::uint32_t fragment[4];
    targets.template load<Operand>(fragment, slot, Kernel::kTargetRow + i * 16, unit);
#pragma unroll
    for (int j = 0; j < Kernel::kQueryBlocks; ++j) {
      const std::uint32_t second[2] = {queries[j / 2][j % 2 * 2], queries[j / 2][j % 2 * 2 + 1]};
      Operand::multiply(accumulators[i][j], fragment, second);
    }
  }
}

// The same on the ordinary cores, for one chunk of fp32 channels.
template <class Kernel>
__device__ __forceinline__ void multiply_fp32(typename Kernel::Accumulators& accumulators, const uint4* slot) {
  const int lane = threadIdx.x % 32;
  const int first_query = threadIdx.x / 32 * kWarpQueries + lane % 4 * 2;
  const auto load = [slot](int row, int unit) {
    return ptx::load_shared(reinterpret_cast<const float4*>(slot + slot_index<Kernel::kUnits>(row, unit)));
  };
#pragma unroll
  for (int unit = 0; unit < Kernel::kUnits; ++unit) {
    float4 query[Kernel::kQueryBlocks * 2];
#pragma unroll
    for (int j = 0; j < Kernel::kQueryBlocks * 2; ++j) query[j] = load(first_query + j / 2 * 8 + j % 2, unit);
#pragma unroll
    for (int i = 0; i < Kernel::kTargetBlocks * 2; ++i) {
      const float4 target = load(Kernel::kTargetRow + i * 8 + lane / 4, unit);
#pragma unroll
      for (int j = 0; j < Kernel::kQueryBlocks * 2; ++j) {
        float& sum = accumulators[i / 2][j / 2][i % 2 * 2 + j % 2];
        sum = fmaf(query[j].x, target.x, sum);
        sum = fmaf(query[j].y, target.y, sum);
        sum = fmaf(query[j].z, target.z, sum);
        sum = fmaf(query[j].w, target.w, sum);
      }
    }
  }
}

}  // namespace avsbg
