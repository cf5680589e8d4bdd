// AVX-512 with BF16: each instruction multiplies two channels per lane and adds both products to an fp32 sum. The
// instruction treats denormal inputs and results as zero.
#include <immintrin.h>

#include "kernel.h"

namespace avsbg::cpu {
namespace {

struct Avx512Bf16 {
  using Vector = float __attribute__((vector_size(64)));
  using Operand = __m512i;
  static constexpr std::int64_t kRows = 14, kVectors = 2, kChannelsPerStep = 2;

  static Operand broadcast(const std::uint32_t* word) { return _mm512_set1_epi32(static_cast<int>(*word)); }
  static Vector multiply_add(Operand a, Operand b, Vector sum) {
    return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
  }
  static Vector relu(Vector x) { return (Vector)_mm512_max_ps(_mm512_setzero_ps(), (__m512)x); }
};

}  // namespace

extern const Path kAvx512Bf16 = Kernel<Avx512Bf16>::path("avx512_bf16");

}  // namespace avsbg::cpu
