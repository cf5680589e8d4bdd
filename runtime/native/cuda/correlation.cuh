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

#include "sums.cuh"
#include "tile.cuh"

namespace avsbg {

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
