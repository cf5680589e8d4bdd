#include "mma.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace emulation {
namespace {

float from_bits(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// IEEE binary16: sign, 5 bits of exponent (bias 15), 10 of mantissa.
float from_fp16(std::uint16_t bits) {
  static const std::vector<float> table = [] {
    std::vector<float> values(1 << 16);
    for (int i = 0; i < 1 << 16; ++i) {
      const int exponent = i >> 10 & 31, mantissa = i & 1023;
      float value = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24)
                                  : std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
      if (exponent == 31)
        value = mantissa == 0 ? std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
      values[i] = i >> 15 ? -value : value;
    }
    return values;
  }();
  return table[bits];
}

// Element `e` of a register.
float element(Mma shape, std::uint32_t bits, int e) {
  if (shape == Mma::kK8Tf32) return from_bits(bits & 0xffffe000U);  // the unit ignores the low 13 bits
  const auto half = static_cast<std::uint16_t>(bits >> 16 * e);
  return shape == Mma::kK16Bf16 ? from_bits(static_cast<std::uint32_t>(half) << 16) : from_fp16(half);
}

}  // namespace

void multiply_warp(const WarpOperand (&lanes)[32], float (&d)[32][4]) {
  const Mma shape = lanes[0].shape;
  for (const WarpOperand& lane : lanes)
    if (lane.shape != shape) fail("the lanes of a warp have parted: different kinds of mma");
  const int per_register = shape == Mma::kK8Tf32 ? 1 : 2;
  const int depth = registers_of_b(shape) * per_register * 4;
  double a[16][16] = {}, b[16][8] = {};
  for (int lane = 0; lane < 32; ++lane) {
    const int group = lane / 4, member = lane % 4;
    // Register r of a: rows group (even r) and group + 8 (odd r); r / 2 selects the half of the channels.
    for (int r = 0; r < registers_of_a(shape); ++r)
      for (int e = 0; e < per_register; ++e)
        a[group + r % 2 * 8][(r / 2 * 4 + member) * per_register + e] = element(shape, lanes[lane].a[r], e);
    // Register r of b: column group, half r of the channels.
    for (int r = 0; r < registers_of_b(shape); ++r)
      for (int e = 0; e < per_register; ++e)
        b[(r * 4 + member) * per_register + e][group] = element(shape, lanes[lane].b[r], e);
  }
  double product[16][8] = {};
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < depth; ++k)
      for (int column = 0; column < 8; ++column) product[row][column] += a[row][k] * b[k][column];
  // Element e of the accumulator: rows group and group + 8, columns 2 member and 2 member + 1.
  for (int lane = 0; lane < 32; ++lane)
    for (int e = 0; e < 4; ++e)
      d[lane][e] = static_cast<float>(lanes[lane].c[e] + product[lane / 4 + e / 2 * 8][lane % 4 * 2 + e % 2]);
}

std::uint32_t round_to_tf32(std::uint32_t bits) {
  if (std::isnan(from_bits(bits))) return 0x7fffffffU;
  return (bits + 0x1000U) & 0xffffe000U;  // an infinity stays one
}

}  // namespace emulation
