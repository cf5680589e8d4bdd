// The kernel. A block, "worker", owns a stretch of the launch's list of tiles (plan.h). For each query tile in it, it
// takes 128 rows of a ("queries") and walks over tiles of rows of b ("targets"); each of its four warps multiplies 32
// queries with the whole tile and folds the product into sums (or writes it, for the volume).
//
//   * Tiles arrive in a ring of kStages slots of shared memory, by asynchronous copies. One barrier per slot: behind
//     it every thread may read the slot that has arrived, and the slot that was read last may be overwritten. The ring
//     goes on over the query tiles of a worker.
//   * Units of 16 bytes are stored under an exclusive-or of their row, so that neither the copies nor the reads meet in
//     a bank.
//   * What lies outside a map or beyond its channels is zero in shared memory, and is left out of the sums where it
//     would matter (0 * inf is NaN).
//   * Sums are taken in a fixed order: per thread over the tiles, then across lanes, warps, and finally workers
//     (combine.cuh).
#pragma once

#include "sums.cuh"
#include "tile.cuh"

namespace avsbg {

// The end of this block's tiles; computed where it is asked for, since it is asked for rarely.
__device__ __forceinline__ std::int64_t end_of_worker(const CorrelateArguments& args) {
  return first_tile_of(ptx::keep(static_cast<std::int64_t>(blockIdx.x)) + 1, args.workers, args.tiles);
}

// Fills the ring's slots. Resident: of each query tile first the 32 queries of each warp, then its tiles of targets, all
// of 32 rows. Streamed: each tile's chunks, with the queries' before the targets'.
template <class Kernel>
class TileReader {
 public:
  __device__ TileReader(const CorrelateArguments& args, std::int64_t tile) : args_(args), tile_(tile) {}

  // Copies the next item, if there is one, as a group of its own: the waits count groups.
  __device__ void copy_next(uint4* slot) {
    if (items_ == 0 && more_) begin_items();
    if (items_ > 0) {
      if constexpr (Kernel::kResident) {
        rows_.template copy<Kernel::kTargets>(slot);
      } else {
        copy_chunk(slot);
      }
      --items_;
    }
    ptx::copy_commit();
  }

 private:
  __device__ void begin_items() {
    const std::int64_t end = end_of_worker(args_);
    const Stretch stretch = stretch_at(args_, tile_, end);
    const Task& task = stretch.task;
    const std::int64_t map = stretch.pair + stretch.pair / task.pairs_per_clip;
    if constexpr (Kernel::kResident) {
      if (queries_next_) {
        items_ = kWarps;
        rows_.begin(task.a + map * task.p * task.units, stretch.query_tile * kQueries, task.p, 0, task.units);
      } else {
        items_ = stretch.tiles;
        rows_.begin(task.b + map * task.q * task.units, stretch.first_tile * Kernel::kTargets, task.q, 0, task.units);
        tile_ += stretch.tiles;
        more_ = tile_ < end;
      }
      queries_next_ = !queries_next_;
    } else {
      chunks_ = chunk_count(task.units);
      items_ = stretch.tiles * chunks_;
      chunk_ = 0;
      a_ = task.a + map * task.p * task.units;
      b_ = task.b + map * task.q * task.units;
      p_ = task.p, q_ = task.q, units_ = task.units;
      query_ = stretch.query_tile * kQueries;
      target_ = stretch.first_tile * Kernel::kTargets;
      tile_ += stretch.tiles;
      more_ = tile_ < end;
    }
  }

  __device__ void copy_chunk(uint4* slot) {
    rows_.begin(a_, query_, p_, chunk_ * Kernel::kUnits, units_);
    rows_.template copy<kQueries>(slot);
    rows_.begin(b_, target_, q_, chunk_ * Kernel::kUnits, units_);
    rows_.template copy<Kernel::kTargets>(slot + Kernel::kTargetRow * Kernel::kUnits);
    if (++chunk_ == chunks_) {
      chunk_ = 0;
      target_ += Kernel::kTargets;
    }
  }

 public:
  __device__ static int chunk_count(int units) {
    return Kernel::kResident ? 1 : (units + Kernel::kUnits - 1) / Kernel::kUnits;
  }

 private:
  const CorrelateArguments& args_;
  std::int64_t tile_;
  RowCopier<Kernel::kUnits> rows_;
  int items_ = 0;
  bool more_ = true;  // items after those
  bool queries_next_ = true;                    // resident
  const uint4 *a_ = nullptr, *b_ = nullptr;     // streamed, as what follows
  int p_ = 0, q_ = 0, units_ = 0, query_ = 0, target_ = 0, chunk_ = 0, chunks_ = 1;
};

// Grid: the workers.
template <class Kernel>
__global__ void __launch_bounds__(kThreads, Kernel::kBlocksPerSm)
    correlate(const AVSBG_GRID_CONSTANT CorrelateArguments args) {
  using Operand = typename Kernel::Operand;
  constexpr int kUnits = Kernel::kUnits;
  AVSBG_SHARED(typename Kernel::Shared, shared);

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  std::int64_t at = first_tile_of(blockIdx.x, args.workers, args.tiles);

  TileReader<Kernel> reader(args, at);
  uint4 *arriving = shared.slots[0], *following = shared.slots[1], *free = shared.slots[2];
  static_assert(kStages == 3);
  reader.copy_next(arriving);
  reader.copy_next(following);
  // Waits for the next slot, and has the one filled that was read before.
  const auto take_slot = [&]() -> const uint4* {
    AVSBG_COPY_WAIT(kStages - 2);  // this thread's part of the item has arrived
    __syncthreads();               // so has everyone's, and everyone has left the slot that is filled next
    reader.copy_next(free);
    uint4* taken = arriving;
    arriving = following, following = free, free = taken;
    return taken;
  };

  // Adds up the sums of the last tile's targets over the warps, behind a barrier; the warps take turns at it.
  unsigned tile_number = 0;
  const auto finish_columns = [&](float* columns, int count, float scale) {
    if (tile_number % kWarps != static_cast<unsigned>(warp)) return;
#pragma unroll
    for (int column = lane; column < Kernel::kTargets; column += 32) {
      float sum = 0.0F;
#pragma unroll
      for (int w = 0; w < kWarps; ++w)
        sum += ptx::load_shared(&shared.columns[(tile_number + 1) % 2][w][column_index(column)]);
      if (column < count) columns[column] = sum * scale;
    }
  };

  const FirstFactor<kUnits> targets;
  constexpr int kSteps = Kernel::kResident ? kUnits / 2 : 1;
  Queries<Kernel> queries[kSteps];
  while (at < end_of_worker(args)) {
    const Stretch stretch = stretch_at(args, at, end_of_worker(args));
    const Task& task = stretch.task;
    const int chunks = TileReader<Kernel>::chunk_count(task.units);
    const int warp_query = stretch.query_tile * kQueries + warp * kWarpQueries;
    const int queries_left = task.p - warp_query;
    int targets_left = task.q - stretch.first_tile * Kernel::kTargets;
    float query_sums[Kernel::kQueryBlocks * 2] = {};

    if constexpr (Kernel::kResident) {
      for (int i = 0; i < kWarps; ++i) {
        const uint4* slot = take_slot();
        if (i != warp) continue;
#pragma unroll
        for (int step = 0; step < kSteps; ++step) load_queries<Kernel>(queries[step], slot, 0, step * 2);
      }
    }
    float* columns = nullptr;  // of the tile before
    if constexpr (Kernel::kColumns)
      columns = task.columns + (stretch.query_tile * task.n + stretch.pair) * task.q +
                (stretch.first_tile - 1) * Kernel::kTargets;

    bool has_last = false;  // a tile before, whose columns are not finished
    for (int left = stretch.tiles; left > 0; --left) {
      typename Kernel::Accumulators accumulators = {};
      for (int chunk = 0; chunk < chunks; ++chunk) {
        const uint4* slot = take_slot();
        if constexpr (Kernel::kColumns) {
          if (chunk == 0 && has_last) finish_columns(columns, Kernel::kTargets, task.column_scale);
        }
        if constexpr (!Operand::kTensorCore) {
          multiply_fp32<Kernel>(accumulators, slot);
        } else {
#pragma unroll
          for (int unit = 0; unit < kUnits; unit += 2) {
            if constexpr (!Kernel::kResident) load_queries<Kernel>(queries[0], slot, warp * kWarpQueries, unit);
            multiply_step<Kernel>(accumulators, queries[Kernel::kResident ? unit / 2 : 0], targets, slot, unit);
          }
        }
      }
      // The tile's product is complete.
      if constexpr (Kernel::kOutput == Output::kVolume) {
        store_volume<Kernel>(accumulators, task, args.relu, stretch.pair, warp_query, task.q - targets_left);
      } else {
        float target_sums[Kernel::kTargetBlocks * 2];
        if (targets_left < Kernel::kTargets || (Kernel::kColumns && queries_left < kWarpQueries)) {
          add_product<Kernel, true>(accumulators, queries_left, targets_left, query_sums, target_sums);
        } else {
          add_product<Kernel, false>(accumulators, queries_left, targets_left, query_sums, target_sums);
        }
        if constexpr (Kernel::kColumns) {
          sum_over_lanes<2>(target_sums);
          store_columns(shared.columns[tile_number % 2][warp], target_sums);
          columns += Kernel::kTargets;
          ++tile_number;
          has_last = true;
        }
      }
      targets_left -= Kernel::kTargets;
    }

    if constexpr (Kernel::kColumns) {
      __syncthreads();  // the last tile's sums are there
      finish_columns(columns, targets_left + Kernel::kTargets, task.column_scale);
    }
    // Found anew, so that nothing but where it begins is held in registers meanwhile.
    const Stretch done = stretch_at(args, ptx::keep(at), end_of_worker(args));
    if constexpr (Kernel::kOutput != Output::kVolume) {
      const bool whole = done.tiles == done.task.target_tiles;
      const int first_query = done.query_tile * kQueries + warp * kWarpQueries;
      float* partial = args.row_partials + partial_of(blockIdx.x, done.first_tile == 0) * kQueries;
      float* means = whole ? done.task.mean_a + done.pair * done.task.p + first_query : partial + warp * kWarpQueries;
      const int written = whole ? done.task.p - first_query : kWarpQueries;
#pragma unroll
      for (int column = 0; column < Kernel::kQueryBlocks * 2; ++column) {
        float sum = query_sums[column];
        sum += __shfl_xor_sync(0xffffffffU, sum, 4);
        sum += __shfl_xor_sync(0xffffffffU, sum, 8);
        sum += __shfl_xor_sync(0xffffffffU, sum, 16);
        const int query = query_of(column / 2, column % 2);
        if (lane < 4 && query < written) means[query] = whole ? sum / static_cast<float>(done.task.q) : sum;
      }
    }
    at += done.tiles;
  }

  ptx::release_dependents();
}

}  // namespace avsbg
