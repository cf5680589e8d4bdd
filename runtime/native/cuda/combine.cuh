// The second stage of the sums: adds up what several workers or query tiles found for one row or column, in their order.
#pragma once

#include "configuration.cuh"

namespace avsbg {

inline constexpr int kCombineThreads = 128;
static_assert(kCombineThreads == kQueries);

struct CombineArguments {
  CorrelateArguments of;
  float* mean_b[kMostTasks];  // [n, q]; null where the columns need no second stage
  std::int64_t row_blocks[kMostTasks], column_blocks[kMostTasks];  // of each task, in this order
};

// Adds up the rows of a query tile, counted over all pairs, that several workers share.
__device__ __forceinline__ void combine_rows(const CorrelateArguments& of, const Task& task, std::int64_t tile) {
  const std::int64_t first = task.first_tile + tile * task.target_tiles, last = first + task.target_tiles - 1;
  // The worker of a tile, as first_tile_of has it.
  const std::int64_t begins = ((first + 1) * of.workers - 1) / of.tiles, ends = ((last + 1) * of.workers - 1) / of.tiles;
  const int query = static_cast<int>(tile % task.query_tiles) * kQueries + static_cast<int>(threadIdx.x);
  if (begins == ends || query >= task.p) return;
  float sum = of.row_partials[partial_of(begins, true) * kQueries + threadIdx.x];
  for (std::int64_t worker = begins + 1; worker <= ends; ++worker)
    sum += of.row_partials[partial_of(worker, false) * kQueries + threadIdx.x];
  task.mean_a[tile / task.query_tiles * task.p + query] = sum / static_cast<float>(task.q);
}

// Adds up the query tiles' sums of 128 columns, counted over all pairs.
__device__ __forceinline__ void combine_columns(const Task& task, float* mean_b, std::int64_t block) {
  const std::int64_t elements = task.n * task.q, element = block * kCombineThreads + threadIdx.x;
  if (element >= elements) return;
  float sum = 0.0F;
  for (int i = 0; i < task.query_tiles; ++i) sum += task.columns[i * elements + element];
  mean_b[element] = sum / static_cast<float>(task.p);
}

// Grid: the blocks of all tasks, one after the other.
__global__ void __launch_bounds__(kCombineThreads) combine(const AVSBG_GRID_CONSTANT CombineArguments args) {
  ptx::wait_for_previous_kernel();
  std::int64_t block = blockIdx.x;
  for (int i = 0; i < args.of.count; ++i) {
    if (block < args.row_blocks[i]) return combine_rows(args.of, args.of.tasks[i], block);
    block -= args.row_blocks[i];
    if (block < args.column_blocks[i]) return combine_columns(args.of.tasks[i], args.mean_b[i], block);
    block -= args.column_blocks[i];
  }
}

}  // namespace avsbg
