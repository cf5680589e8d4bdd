// AVX-512: 14 rows by 2 vectors take 28 of the 32 registers. 14 also divides the squares of 56, 28 and 14.
#include <immintrin.h>

#include "kernel.h"

namespace avsbg::cpu {
namespace {

struct Avx512 {
  using Vector = float __attribute__((vector_size(64)));
  using Operand = Vector;
  static constexpr std::int64_t kRows = 14, kVectors = 2, kChannelsPerStep = 1;

  static Operand broadcast(const std::uint32_t* word) {
    return (Operand)_mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(*word)));
  }
  static Vector multiply_add(Operand a, Operand b, Vector sum) {
    return (Vector)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)sum);
  }
  // max returns its second operand when either is NaN.
  static Vector relu(Vector x) { return (Vector)_mm512_max_ps(_mm512_setzero_ps(), (__m512)x); }
};

}  // namespace

extern const Path kAvx512 = Kernel<Avx512>::path("avx512");

}  // namespace avsbg::cpu
