// The cut of problems into tiles, and the share of each block. Host code without CUDA, but for the functions
// that the kernels need as well: what the launcher, the kernels and the tests agree on.
#pragma once

#include <algorithm>
#include <cstdint>

#include "correlation.h"

#if defined(__CUDACC__)
#define AVSBG_HOST_DEVICE __host__ __device__
#else
#define AVSBG_HOST_DEVICE
#endif

namespace avsbg {

inline constexpr int kThreads = 128;        // of a block: 4 warps
inline constexpr int kWarps = kThreads / 32;
inline constexpr int kWarpQueries = 32;     // rows of a that one warp owns
inline constexpr int kQueries = kWarps * kWarpQueries;  // rows of a that one block owns
inline constexpr int kStages = 3;           // tiles in flight between memory and the tensor cores

// A row of channels is handled in units of 16 bytes. Two ways to walk through the channels:
//   resident: the block's rows of a stay in registers (rows of up to 16 units, so 128 channels of fp16);
//   streamed: chunks of 4 units of both maps pass through shared memory (any row).
// A resident kernel multiplies 4, 8 or 16 units, whatever a row holds: there is one for each.
inline constexpr int kResidentUnits = 16;
inline constexpr int kResidentTargets = 32;  // rows of b in a tile
inline constexpr int kStreamedUnits = 4;
inline constexpr int kStreamedTargets = 64;

// Blocks of a launch: enough for every current device, and what bounds the workspace.
inline constexpr std::int64_t kMostWorkers = 1024;
// A block loads its rows of a before its first tile, which takes as long as about so many tiles.
inline constexpr std::int64_t kLeastTiles = 4;

inline std::int64_t ceil_divide(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

inline int element_size(DataType dtype) {
  return dtype == DataType::kFloat16 || dtype == DataType::kBfloat16 ? 2 : 4;
}

inline int row_units(const CorrelationProblem& problem) {
  return static_cast<int>(problem.c * element_size(problem.dtype) / 16);
}

enum class Output { kRows, kRowsAndColumns, kVolume };

// The kernel for rows of so many units. The volume is always streamed: it is bound by its own size.
struct Schedule {
  bool resident;
  int units;         // that a tile holds of a row
  int targets;       // rows of b in a tile
  int blocks_per_sm; // that run at the same time
};

// As registers and shared memory allow, in the compiled kernels (benchmarks/results/kernel_static.json; a test holds the
// two together). Constants, so that a Device alone decides how the sums are taken.
inline int count_blocks_per_sm(DataType dtype, const Schedule& schedule, bool columns, int compute_capability) {
  const bool turing = compute_capability < 80, blackwell = compute_capability >= 100;
  if (!schedule.resident) {
    // Of shared memory, sm_75 has 64 KiB on a multiprocessor, these 100 KiB, and all others enough for three.
    const bool small = compute_capability == 86 || compute_capability == 89 || compute_capability / 10 == 12;
    if (turing) return 1;
    return small || dtype == DataType::kFloat32 ? 2 : 3;
  }
  // Registers limit the rest.
  if (schedule.units == 16) return turing ? 2 : 3;
  if (schedule.units == 8) return blackwell || (compute_capability >= 90 && dtype == DataType::kTf32) ? 3 : 4;
  return columns || turing || blackwell ? 4 : 5;
}

inline Schedule choose_schedule(DataType dtype, int units, Output output, const Device& device) {
  Schedule schedule{};
  schedule.resident = output != Output::kVolume && dtype != DataType::kFloat32 && units <= kResidentUnits;
  schedule.units = !schedule.resident || units <= 4 ? 4 : units <= 8 ? 8 : 16;
  schedule.targets = schedule.resident ? kResidentTargets : kStreamedTargets;
  const bool columns = output == Output::kRowsAndColumns;
  schedule.blocks_per_sm = count_blocks_per_sm(dtype, schedule, columns, device.compute_capability);
  return schedule;
}

// The tiles of all query tiles, pairs and problems of a launch form one list, which is cut into as many stretches of
// equal length (to one tile) as there are blocks, "workers". Blocks of one multiprocessor share its tensor cores: equal
// stretches, as many on each, keep all multiprocessors at work to the end, however small a problem is.
inline std::int64_t count_workers(std::int64_t tiles, const Schedule& schedule, const Device& device) {
  const std::int64_t sms = device.sm_count;
  const std::int64_t each = std::clamp<std::int64_t>(tiles / (sms * kLeastTiles), 1, schedule.blocks_per_sm);
  const std::int64_t most = sms * std::max<std::int64_t>(1, std::min(each, kMostWorkers / sms));
  return std::min({tiles, most, kMostWorkers});
}

// The first tile of a worker; of worker `workers` the end of the list.
AVSBG_HOST_DEVICE inline std::int64_t first_tile_of(std::int64_t worker, std::int64_t workers, std::int64_t tiles) {
  return worker * (tiles / workers) + worker * (tiles % workers) / workers;
}

// Floats of row sums to be combined where a query tile's targets are shared by workers: each has at most two stretches
// that begin or end inside a query tile. It never decreases as the number of tiles grows.
inline std::int64_t row_partials(std::int64_t tiles) { return 2 * std::min(tiles, kMostWorkers) * kQueries; }

// Floats of column sums to be combined where a map has several query tiles.
inline std::int64_t column_partials(const CorrelationProblem& problem) {
  const std::int64_t query_tiles = ceil_divide(problem.p, kQueries);
  return query_tiles <= 1 ? 0 : query_tiles * problem.n * problem.q;
}

inline std::int64_t count_tiles(const CorrelationProblem& problem, int targets) {
  return problem.n * ceil_divide(problem.p, kQueries) * ceil_divide(problem.q, targets);
}

}  // namespace avsbg
