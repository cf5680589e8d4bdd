// The correlation operator on the CPU: what it computes, and on what. Nothing here knows of ONNX Runtime.
//
// Definition. a is [N, P, C] and b is [N, Q, C]: N pairs of maps whose rows are positions, channels last.
//
//     volume[n, p, q] = sum over c of a[n, p, c] * b[n, q, c]
//     mean_a[n, p]    = 1/Q * sum over q of relu(volume[n, p, q])
//     mean_b[n, q]    = 1/P * sum over p of relu(volume[n, p, q])
//
// mean_correlation computes the two means without ever storing the volume; correlation_volume stores it.
//
// Layout.     Every tensor is dense and row-major.
// Types.      a and b share one DataType. Sums are held in fp32 and every output is fp32. A path of fp32 instructions
//             widens 16-bit inputs first, exactly; one of bf16 instructions rounds fp32 and fp16 inputs to bf16 (ties
//             to even), which is why it only ever runs when it was asked for by name.
// Ranges.     C >= 1, P >= 1, Q >= 1, N >= 0.
// Non-finite. As torch.relu: relu(NaN) = NaN, so a NaN product makes its two means NaN. A product of +inf makes them
//             +inf, one of -inf counts as 0, and inf * 0 is NaN. Padding never takes part: it adds no NaN of its own.
// Result.     For one path the bits do not depend on the number of threads: work is cut by the shapes alone, and every
//             sum has a fixed order. Paths differ in the last bits.
// Memory.     At most kWorkspaceBytes beyond inputs and outputs, whatever the shapes up to C = 1024.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "path.h"

namespace avsbg::cpu {

inline constexpr std::size_t kWorkspaceBytes = std::size_t{6} << 20;

struct Problem {
  std::int64_t n = 0;  // pairs of maps
  std::int64_t p = 0;  // positions of each map of a
  std::int64_t q = 0;  // positions of each map of b
  std::int64_t c = 0;  // channels
  DataType dtype = DataType::kFloat32;
  const void* a = nullptr;
  const void* b = nullptr;
};

// Lent by the caller: a way to run task(0) .. task(count - 1) in any order on its threads, returning when all are
// done, and scratch memory.
struct Resources {
  std::function<void(std::size_t count, const std::function<void(std::size_t)>& task)> parallel_for;
  std::function<void*(std::size_t bytes)> allocate;  // 64-byte aligned; freed by the caller after the call
};

// mean_b may be nullptr when it is not wanted.
void mean_correlation(const Path& path, const Problem& problem, float* mean_a, float* mean_b,
                      const Resources& resources);

void correlation_volume(const Path& path, const Problem& problem, bool relu, float* volume,
                        const Resources& resources);

}  // namespace avsbg::cpu
