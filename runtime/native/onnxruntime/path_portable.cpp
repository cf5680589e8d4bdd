// The path that every CPU can run: vectors of four, which the compiler maps to what its target has.
#include "kernel.h"

namespace avsbg::cpu {
namespace {

struct Portable {
  using Vector = float __attribute__((vector_size(16)));
  using Operand = Vector;
  static constexpr std::int64_t kRows = 4, kVectors = 2, kChannelsPerStep = 1;

  static Operand broadcast(const std::uint32_t* word) {
    float value;
    std::memcpy(&value, word, sizeof value);
    return Operand{value, value, value, value};
  }
  static Vector multiply_add(Operand a, Operand b, Vector sum) { return sum + a * b; }
  static Vector relu(Vector x) { return x < 0 ? Vector{} : x; }
};

}  // namespace

extern const Path kPortable = Kernel<Portable>::path("portable");

}  // namespace avsbg::cpu
