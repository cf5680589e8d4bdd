// How a problem is cut into tiles and blocks. Host code without CUDA: also what the tests and the kernel agree on.
#pragma once

#include <algorithm>
#include <cstdint>

#include "correlation.h"

namespace avsbg {

inline constexpr int kThreads = 128;        // of a block: 4 warps
inline constexpr int kWarps = kThreads / 32;
inline constexpr int kWarpQueries = 32;     // rows of a that one warp owns
inline constexpr int kQueries = kWarps * kWarpQueries;  // rows of a that one block owns
inline constexpr int kStages = 3;           // tiles in flight between memory and the tensor cores

// A row of channels is handled in units of 16 bytes. Two ways to walk through the channels:
//   resident: the block's rows of a stay in registers (rows of up to 16 units, so 128 channels of fp16);
//   streamed: chunks of 4 units of both maps pass through shared memory (any row).
inline constexpr int kResidentUnits = 16;
inline constexpr int kResidentTargets = 32;  // rows of b in a tile
inline constexpr int kStreamedUnits = 4;
inline constexpr int kStreamedTargets = 64;

// Splitting the targets over the grid fills the device when the map is small, and is stopped here: with this many
// blocks every current device is full, and the workspace of row sums stays within 4 * 128 * 1024 bytes.
inline constexpr std::int64_t kMaxSplitBlocks = 1024;

inline std::int64_t ceil_divide(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

inline int element_size(DataType dtype) {
  return dtype == DataType::kFloat16 || dtype == DataType::kBfloat16 ? 2 : 4;
}

struct Plan {
  bool resident;
  int units;                 // per row
  int targets;               // rows of b in a tile
  std::int64_t query_tiles;  // per map of a
  int target_tiles;          // per map of b
  int tiles_per_split;
  int splits;                // blocks that share one query tile, each with its own targets
};

// The number of splits that minimises (rounds of blocks) x (tiles of a block): each block does its tiles, and about
// four tiles' worth of work before the first. Never leaves a block without a tile.
inline int choose_splits(std::int64_t blocks, int target_tiles, std::int64_t slots) {
  constexpr std::int64_t kStartTiles = 4;
  const std::int64_t most = std::max<std::int64_t>(1, std::min<std::int64_t>(target_tiles, kMaxSplitBlocks / blocks));
  std::int64_t best = 1;
  std::int64_t best_cost = INT64_MAX;
  for (std::int64_t splits = 1; splits <= most; ++splits) {
    const std::int64_t tiles = ceil_divide(target_tiles, splits);
    if (ceil_divide(target_tiles, tiles) != splits) continue;  // some block would have nothing to do
    const std::int64_t cost = ceil_divide(blocks * splits, slots) * (tiles + kStartTiles);
    if (cost < best_cost) {
      best = splits;
      best_cost = cost;
    }
  }
  return static_cast<int>(best);
}

// For a problem that why_declined accepts, with n > 0. The volume is always streamed: it is bound by its own size.
inline Plan make_plan(const CorrelationProblem& problem, const Device& device, bool volume) {
  constexpr std::int64_t kBlocksPerSm = 3;  // what shared memory and registers allow on most devices
  Plan plan{};
  plan.units = static_cast<int>(problem.c * element_size(problem.dtype) / 16);
  plan.resident = !volume && problem.dtype != DataType::kFloat32 && plan.units <= kResidentUnits;
  plan.targets = plan.resident ? kResidentTargets : kStreamedTargets;
  plan.query_tiles = ceil_divide(problem.p, kQueries);
  plan.target_tiles = static_cast<int>(ceil_divide(problem.q, plan.targets));
  plan.splits = choose_splits(plan.query_tiles * problem.n, plan.target_tiles, kBlocksPerSm * device.sm_count);
  plan.tiles_per_split = static_cast<int>(ceil_divide(plan.target_tiles, plan.splits));
  return plan;
}

// Floats of row sums to be combined where the targets are split: a bound that no device and no smaller problem exceeds,
// since splits > 1 only with blocks * splits <= kMaxSplitBlocks.
inline std::int64_t row_partials(const CorrelationProblem& problem) {
  const std::int64_t most_splits = std::min(ceil_divide(problem.q, kResidentTargets), kMaxSplitBlocks);
  return most_splits <= 1 ? 0 : std::min(most_splits * problem.n * problem.p, kMaxSplitBlocks * kQueries);
}

// Floats of column sums to be combined where a map has several query tiles.
inline std::int64_t column_partials(const CorrelationProblem& problem) {
  const std::int64_t query_tiles = ceil_divide(problem.p, kQueries);
  return query_tiles <= 1 ? 0 : query_tiles * problem.n * problem.q;
}

}  // namespace avsbg
