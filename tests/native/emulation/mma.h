// The tensor-core instruction on a warp's registers, after the tables of the PTX ISA ("mma", matrix fragments).
#pragma once

#include <cstdint>

#include "emulation.h"

namespace emulation {

// A lane's part in a warp-wide instruction.
struct WarpOperand {
  const void* row = nullptr;  // ldmatrix
  float value = 0;            // shuffle
  Mma shape = Mma::kK8Fp16;   // mma
  std::uint32_t a[4] = {}, b[2] = {};
  float c[4] = {};
};

inline int registers_of_a(Mma shape) { return shape == Mma::kK8Fp16 ? 2 : 4; }
inline int registers_of_b(Mma shape) { return shape == Mma::kK8Fp16 ? 1 : 2; }

// d of each lane = a * b + c over all 32 lanes.
void multiply_warp(const WarpOperand (&lanes)[32], float (&d)[32][4]);

// tf32 keeps 10 bits of the mantissa: nearest, ties away from zero (cvt.rna).
std::uint32_t round_to_tf32(std::uint32_t bits);

}  // namespace emulation
