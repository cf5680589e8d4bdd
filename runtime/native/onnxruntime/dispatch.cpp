#include "dispatch.h"

namespace avsbg::cpu {

extern const Path kAvx512, kAvx512Bf16, kAvx2, kNeon, kPortable;

const std::vector<const Path*>& available_paths() {
  static const std::vector<const Path*> paths = [] {
    std::vector<const Path*> found;
#if defined(__x86_64__)
    // The compiler's run-time test includes whether the operating system saves the registers.
    __builtin_cpu_init();
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (avx512) found.push_back(&kAvx512);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(&kAvx2);
#elif defined(__aarch64__)
    found.push_back(&kNeon);
#endif
    found.push_back(&kPortable);
#if defined(__x86_64__)
    if (avx512 && __builtin_cpu_supports("avx512bf16")) found.push_back(&kAvx512Bf16);
#endif
    return found;
  }();
  return paths;
}

std::string available_path_names() {
  std::string names;
  for (const Path* path : available_paths()) {
    names += (names.empty() ? "" : ", ") + std::string(path->name);
  }
  return names;
}

const Path* find_path(const std::string& name) {
  if (name == "auto") return available_paths().front();
  for (const Path* path : available_paths()) {
    if (name == path->name) return path;
  }
  return nullptr;
}

}  // namespace avsbg::cpu
