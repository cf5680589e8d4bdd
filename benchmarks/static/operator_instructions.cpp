// One call of the ONNX Runtime operator's inner part by one path, for callgrind: usage PATH N P C.
// Only `mean_correlation` is counted (callgrind's --toggle-collect), neither start-up nor input.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "correlation.h"

// Named here rather than found by dispatch.cpp, so that no path that valgrind cannot run has to be built.
namespace avsbg::cpu {
extern const Path kAvx2, kPortable;
}  // namespace avsbg::cpu

using namespace avsbg::cpu;

int main(int argc, char** argv) {
  if (argc != 5) return std::fprintf(stderr, "usage: %s PATH N P C\n", argv[0]), 2;
  const std::string name = argv[1];
  const Path* path = name == "portable" ? &kPortable : nullptr;
#if defined(__x86_64__)
  if (name == "avx2") path = &kAvx2;
#endif
  if (path == nullptr) return std::fprintf(stderr, "no path %s here\n", argv[1]), 3;
  const std::int64_t n = std::atoll(argv[2]), p = std::atoll(argv[3]), c = std::atoll(argv[4]);
  std::vector<float> a(n * p * c), b(n * p * c), mean_a(n * p), mean_b(n * p);
  std::uint32_t state = 1;
  for (auto* values : {&a, &b}) {
    for (float& value : *values) value = float((state = state * 1664525u + 1013904223u) >> 8) / float(1 << 23) - 1;
  }
  Problem problem;
  problem.n = n, problem.p = p, problem.q = p, problem.c = c;
  problem.a = a.data(), problem.b = b.data();
  void* memory = nullptr;
  const Resources resources{[](std::size_t count, const std::function<void(std::size_t)>& task) {
                              for (std::size_t i = 0; i < count; ++i) task(i);
                            },
                            [&](std::size_t bytes) {
                              std::free(memory);
                              return memory = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
                            }};
  mean_correlation(*path, problem, mean_a.data(), mean_b.data(), resources);
  std::free(memory);
  return mean_a[0] > 0 ? 0 : 4;
}
