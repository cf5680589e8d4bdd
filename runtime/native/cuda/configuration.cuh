// One kernel's constants, its shared memory and its arguments.
#pragma once

#include "operands.cuh"
#include "plan.h"

namespace avsbg {

// One problem of a launch.
struct Task {
  const uint4* a;  // [maps, p, units]: rows of 16-byte units
  const uint4* b;  // [maps, q, units]
  int p, q, units;
  int query_tiles, target_tiles;
  std::int64_t n;               // pairs
  std::int64_t pairs_per_clip;  // pair k is of the maps k + k / pairs_per_clip of a and of b
  std::int64_t first_tile;      // of its first pair, in the launch's list of tiles
  float* mean_a;   // [n, p]
  float* columns;  // [query_tiles, n, q]: sums times column_scale
  float column_scale;
  float* volume;   // [n, p, q]
};

struct CorrelateArguments {
  Task tasks[kMostTasks];
  int count;
  std::int64_t tiles, workers;
  float* row_partials;  // [2 * workers, kQueries]: see partial_of
  bool relu;            // for the volume
};

// A stretch of a worker's tiles that lie in one query tile.
struct Stretch {
  const Task& task;
  std::int64_t pair;
  int query_tile, first_tile, tiles;
};

// The stretch from `tile` of the launch's list on, which ends before `end`.
__device__ __forceinline__ Stretch stretch_at(const CorrelateArguments& args, std::int64_t tile, std::int64_t end) {
  int number = 0;
  while (number + 1 < args.count && tile >= args.tasks[number + 1].first_tile) ++number;
  const Task& task = args.tasks[number];
  const std::int64_t from = tile - task.first_tile;
  const std::int64_t row = from / task.target_tiles;  // query tiles of all pairs, counted on
  const int first = static_cast<int>(from % task.target_tiles);
  const std::int64_t left = end - tile;
  const int tiles = left < task.target_tiles - first ? static_cast<int>(left) : task.target_tiles - first;
  return {task, row / task.query_tiles, static_cast<int>(row % task.query_tiles), first, tiles};
}

// The place for the sums of a query tile that it does not have alone. Each has at most one that began with an
// earlier worker, and one that it begins and a later worker ends.
AVSBG_HOST_DEVICE inline std::int64_t partial_of(std::int64_t worker, bool begins) { return 2 * worker + begins; }

template <class Operand_, int kResidentUnits_, Output kOutput_>
struct Correlation {
  using Operand = Operand_;
  static constexpr bool kResident = kResidentUnits_ > 0;
  static constexpr Output kOutput = kOutput_;
  static constexpr int kUnits = kResident ? kResidentUnits_ : kStreamedUnits;
  static constexpr int kTargets = kResident ? kResidentTargets : kStreamedTargets;
  // A slot holds a tile of b; streamed, the queries' chunk of the same channels lies before it.
  static constexpr int kTargetRow = kResident ? 0 : kQueries;
  static constexpr int kSlotUnits = (kTargetRow + kTargets) * kUnits;
  static constexpr bool kColumns = kOutput == Output::kRowsAndColumns;
  static constexpr int kBlocksPerSm = Operand::kTensorCore ? 3 : 2;  // leaves 168 or 255 registers to a thread
  // A warp's product, kTargets x 32, in mma accumulators of 16 x 8: the targets are the first factor, so that a target's
  // sum lies in four lanes, and a query's, which is taken once a stretch, in eight.
  static constexpr int kTargetBlocks = kTargets / 16;
  static constexpr int kQueryBlocks = kWarpQueries / 8;

  struct Shared {
    uint4 slots[kStages][kSlotUnits];
    // Sums of each warp's products with a target; two tiles' worth, so that one is read while the next is written.
    float columns[kColumns ? 2 : 1][kWarps][kColumns ? kTargets : 1];
  };
  using Accumulators = float[kTargetBlocks][kQueryBlocks][4];
};

}  // namespace avsbg
