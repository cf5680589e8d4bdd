// One kernel's constants, its shared memory and its arguments.
#pragma once

#include "operands.cuh"
#include "plan.h"

namespace avsbg {

enum class Output { kRows, kRowsAndColumns, kVolume };

struct CorrelateArguments {
  const uint4* a;  // [n, p, units]: rows of 16-byte units
  const uint4* b;  // [n, q, units]
  int p, q, units;
  int query_tiles, target_tiles, tiles_per_split;
  std::int64_t n;
  bool relu;       // for the volume
  float* rows;     // [splits, n, p]: sums divided by row_divisor
  float* columns;  // [query_tiles, n, q]: sums divided by column_divisor
  float row_divisor, column_divisor;
  float* volume;   // [n, p, q]
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

}  // namespace avsbg
