// The second stage of the sums: adds up what several blocks found for one row or column, in the order of the blocks.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

namespace avsbg {

struct Partials {
  const float* partials;  // [count, elements]; count = 0: nothing to do
  float* means;           // [elements]
  std::int64_t elements;
  int count;
  float divisor;
};

inline constexpr int kCombineThreads = 128;

// Grid: x covers the elements, y = 0 for `rows` and 1 for `columns`.
__global__ void __launch_bounds__(kCombineThreads) combine(const Partials rows, const Partials columns) {
  const Partials of = blockIdx.y == 0 ? rows : columns;
  const std::int64_t element = static_cast<std::int64_t>(blockIdx.x) * kCombineThreads + threadIdx.x;
  if (of.count == 0 || element >= of.elements) return;
  float sum = 0.0F;
  for (int i = 0; i < of.count; ++i) sum += of.partials[i * of.elements + element];
  of.means[element] = sum / of.divisor;
}

}  // namespace avsbg
