// AVX2 with FMA: 6 rows by 2 vectors take 12 of the 16 registers.
#include <immintrin.h>

#include "kernel.h"

namespace avsbg::cpu {
namespace {

struct Avx2 {
  using Vector = float __attribute__((vector_size(32)));
  using Operand = Vector;
  static constexpr std::int64_t kRows = 6, kVectors = 2, kChannelsPerStep = 1;

  static Operand broadcast(const std::uint32_t* word) {
    return (Operand)_mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(*word)));
  }
  static Vector multiply_add(Operand a, Operand b, Vector sum) {
    return (Vector)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)sum);
  }
  // max returns its second operand when either is NaN.
  static Vector relu(Vector x) { return (Vector)_mm256_max_ps(_mm256_setzero_ps(), (__m256)x); }
};

}  // namespace

extern const Path kAvx2 = Kernel<Avx2>::path("avx2");

}  // namespace avsbg::cpu
