// The kernel. A block owns 128 rows of a ("queries") and walks over tiles of rows of b ("targets"); each of its four
// warps multiplies 32 queries with the whole tile and folds the product into sums (or writes it, for the volume).
//
//   * Tiles arrive in a ring of kStages slots of shared memory, by asynchronous copies. One barrier per slot: behind
//     it every thread may read the slot that has arrived, and the slot that was read last may be overwritten.
//   * Units of 16 bytes are stored under an exclusive-or of their row, so that neither the copies nor the reads meet in
//     a bank.
//   * What lies outside a map or beyond its channels is zero in shared memory, and is left out of the sums where it
//     would matter (0 * inf is NaN).
//   * Sums are taken in a fixed order: per thread over the tiles, then across lanes, warps, and finally blocks
//     (combine.cuh).
#pragma once

#include "operands.cuh"
#include "plan.h"

namespace avsbg {

enum class Output { kRows, kRowsAndColumns, kVolume };

struct CorrelateArguments {
  const uint4* a;  // [n, p, units] and [n, q, units]: rows of 16-byte units
  const uint4* b;
  int p, q, units;
  int query_tiles, target_tiles, tiles_per_split;
  std::int64_t n;
  bool relu;             // for the volume
  float* rows;           // [splits, n, p]: sums divided by row_divisor
  float* columns;        // [query_tiles, n, q]: sums divided by column_divisor
  float row_divisor, column_divisor;
  float* volume;         // [n, p, q]
};

template <class Operand_, bool kResident_, Output kOutput_>
struct Correlation {
  using Operand = Operand_;
  static constexpr bool kResident = kResident_;
  static constexpr Output kOutput = kOutput_;
  static constexpr int kUnits = kResident ? kResidentUnits : kStreamedUnits;
  static constexpr int kTargets = kResident ? kResidentTargets : kStreamedTargets;
  // A slot holds a tile of b; streamed, the queries' chunk of the same channels lies before it.
  static constexpr int kTargetRow = kResident ? 0 : kQueries;
  static constexpr int kSlotUnits = (kTargetRow + kTargets) * kUnits;
  static constexpr bool kColumns = kOutput == Output::kRowsAndColumns;
  static constexpr int kBlocksPerSm = Operand::kTensorCore ? 3 : 2;  // leaves 168 or 255 registers to a thread
  // A warp's product, 32 x kTargets, in mma accumulators of 16 x 8.
  static constexpr int kRowBlocks = kWarpQueries / 16;
  static constexpr int kColumnBlocks = kTargets / 8;

  struct Shared {
    uint4 slots[kStages][kSlotUnits];
    // Column sums of each warp; two tiles' worth, so that one is read while the next is written. Unused without.
    float columns[kColumns ? 2 : 1][kWarps][kColumns ? kTargets : 1];
  };
  using Accumulators = float[kRowBlocks][kColumnBlocks][4];
};

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

// Grid: x = pair * query_tiles + query tile, y = split of the targets.
template <class Kernel>
__global__ void __launch_bounds__(kThreads, Kernel::kBlocksPerSm) correlate(const CorrelateArguments args) {
  using Operand = typename Kernel::Operand;
  constexpr int kUnits = Kernel::kUnits;
  AVSBG_SHARED(typename Kernel::Shared, shared);

  const std::int64_t pair = blockIdx.x / args.query_tiles;
  const int query_tile = static_cast<int>(blockIdx.x % args.query_tiles);
  const int block_query = query_tile * kQueries;
  const int warp = threadIdx.x / 32;
  const int warp_query = block_query + warp * kWarpQueries;
  const int first_tile = static_cast<int>(blockIdx.y) * args.tiles_per_split;
  const int last_tile = min(first_tile + args.tiles_per_split, args.target_tiles);
  const uint4* a = args.a + pair * args.p * args.units;
  const uint4* b = args.b + pair * args.q * args.units;

  // The ring's items. Resident: first the 32 queries of each warp, then the tiles. Streamed: each tile's chunks.
  const int chunks = Kernel::kResident ? 1 : (args.units + kUnits - 1) / kUnits;
  constexpr int kQueryItems = Kernel::kResident ? kWarps : 0;
  const int items = kQueryItems + (last_tile - first_tile) * chunks;
  int next_item = 0, next_tile = first_tile, next_chunk = 0, next_slot = 0;
  const auto copy_next_item = [&] {
    if (next_item < items) {
      uint4* slot = shared.slots[next_slot];
      if (next_item < kQueryItems) {
        copy_tile<kWarpQueries, kUnits>(slot, a, block_query + next_item * kWarpQueries, args.p, 0, args.units);
      } else {
        if constexpr (!Kernel::kResident)
          copy_tile<kQueries, kUnits>(slot, a, block_query, args.p, next_chunk * kUnits, args.units);
        copy_tile<Kernel::kTargets, kUnits>(slot + Kernel::kTargetRow * kUnits, b, next_tile * Kernel::kTargets, args.q,
                                            next_chunk * kUnits, args.units);
        if (++next_chunk == chunks) {
          next_chunk = 0;
          ++next_tile;
        }
      }
    }
    ptx::copy_commit();  // also when there was nothing to copy: the waits count groups
    ++next_item;
    next_slot = next_slot == kStages - 1 ? 0 : next_slot + 1;
  };
  // Adds up the warps' column sums of a tile.
  const auto finish_columns = [&](int tile) {
    const int column = static_cast<int>(threadIdx.x);
    if (column >= Kernel::kTargets) return;
    float sum = 0.0F;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += ptx::load_shared(&shared.columns[tile % 2][w][column]);
    const int target = tile * Kernel::kTargets + column;
    if (target < args.q) args.columns[(query_tile * args.n + pair) * args.q + target] = sum / args.column_divisor;
  };

  constexpr int kSteps = Kernel::kResident ? kUnits / 2 : 1;
  std::uint32_t queries[kSteps][Kernel::kRowBlocks][4];
  typename Kernel::Accumulators accumulators = {};
  float row_sums[Kernel::kRowBlocks * 2] = {};

#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) copy_next_item();

  int tile = first_tile, chunk = 0, slot_number = 0;
  for (int item = 0; item < items; ++item) {
    AVSBG_COPY_WAIT(kStages - 2);  // this thread's part of the item has arrived
    __syncthreads();               // so has everyone's, and everyone has left the slot that is filled next
    copy_next_item();
    const uint4* slot = shared.slots[slot_number];
    slot_number = slot_number == kStages - 1 ? 0 : slot_number + 1;

    if constexpr (Kernel::kResident) {
      if (item < kQueryItems) {
        if (item == warp) {
#pragma unroll
          for (int step = 0; step < kSteps; ++step)
#pragma unroll
            for (int i = 0; i < Kernel::kRowBlocks; ++i)
              load_queries<Operand, kUnits>(queries[step][i], slot, i * 16, step * 2);
        }
        continue;
      }
    }
    if constexpr (Kernel::kColumns) {
      if (chunk == 0 && tile > first_tile) finish_columns(tile - 1);
    }

    if constexpr (!Operand::kTensorCore) {
      multiply_fp32<Kernel>(accumulators, slot);
    } else {
#pragma unroll
      for (int unit = 0; unit < kUnits; unit += 2) {
        if constexpr (Kernel::kResident) {
          multiply_step<Kernel>(accumulators, queries[unit / 2], slot, unit);
        } else {
#pragma unroll
          for (int i = 0; i < Kernel::kRowBlocks; ++i)
            load_queries<Operand, kUnits>(queries[0][i], slot, warp * kWarpQueries + i * 16, unit);
          multiply_step<Kernel>(accumulators, queries[0], slot, unit);
        }
      }
    }
    if (++chunk < chunks) continue;

    // The tile's product is complete.
    chunk = 0;
    const int first_target = tile * Kernel::kTargets;
    if constexpr (Kernel::kOutput == Output::kVolume) {
      store_volume<Kernel>(accumulators, args, pair, warp_query, first_target);
    } else {
      float column_sums[Kernel::kColumnBlocks * 2];
      const int queries_left = args.p - warp_query;
      const int targets_left = args.q - first_target;
      if (targets_left < Kernel::kTargets || (Kernel::kColumns && queries_left < kWarpQueries)) {
        add_product<Kernel, true>(accumulators, queries_left, targets_left, row_sums, column_sums);
      } else {
        add_product<Kernel, false>(accumulators, queries_left, targets_left, row_sums, column_sums);
      }
      if constexpr (Kernel::kColumns) {
        sum_over_lanes<16>(column_sums);
        store_columns(shared.columns[tile % 2][warp], column_sums);
      }
    }
    ++tile;
#pragma unroll
    for (auto& row : accumulators)
#pragma unroll
      for (auto& block : row)
#pragma unroll
        for (float& element : block) element = 0.0F;
  }

  if constexpr (Kernel::kColumns) {
    __syncthreads();  // the last tile's column sums are there
    finish_columns(last_tile - 1);
  }
  if constexpr (Kernel::kOutput != Output::kVolume) {
#pragma unroll
    for (int row = 0; row < Kernel::kRowBlocks * 2; ++row) {
      float sum = row_sums[row];
      sum += __shfl_xor_sync(0xffffffffU, sum, 1);
      sum += __shfl_xor_sync(0xffffffffU, sum, 2);
      const int query = warp_query + query_of(row / 2, row % 2 * 2);
      if (threadIdx.x % 4 == 0 && query < args.p)
        args.rows[(blockIdx.y * args.n + pair) * args.p + query] = sum / args.row_divisor;
    }
  }
}

}  // namespace avsbg
