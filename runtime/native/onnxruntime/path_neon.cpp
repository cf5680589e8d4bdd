// NEON (aarch64): 8 rows by 3 vectors take 24 of the 32 registers.
#include <arm_neon.h>

#include "kernel.h"

namespace avsbg::cpu {
namespace {

struct Neon {
  using Vector = float __attribute__((vector_size(16)));
  using Operand = Vector;
  static constexpr std::int64_t kRows = 8, kVectors = 3, kChannelsPerStep = 1;

  static Operand broadcast(const std::uint32_t* word) {
    return (Operand)vreinterpretq_f32_u32(vld1q_dup_u32(word));
  }
  static Vector multiply_add(Operand a, Operand b, Vector sum) {
    return (Vector)vfmaq_f32((float32x4_t)sum, (float32x4_t)a, (float32x4_t)b);
  }
  // FMAX returns NaN when either operand is NaN.
  static Vector relu(Vector x) { return (Vector)vmaxq_f32((float32x4_t)x, vdupq_n_f32(0)); }
};

}  // namespace

extern const Path kNeon = Kernel<Neon>::path("neon");

}  // namespace avsbg::cpu
