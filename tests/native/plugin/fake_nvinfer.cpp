// Stands for libnvinfer: a registry of which every function remembers the path it was given. Its table of functions is
// filled by hand, since which ones a registry must implement differs from one TensorRT to the next.
#include <array>
#include <string>

namespace {

std::string loaded;

void* remember(void*, char const* path) {
  loaded = path;
  return &loaded;
}

using Functions = std::array<void* (*)(void*, char const*), 64>;
Functions const functions = [] {
  Functions table{};
  table.fill(remember);
  return table;
}();
struct {
  void const* functions;
} registry{functions.data()};

}  // namespace

extern "C" __attribute__((visibility("default"))) void* getPluginRegistry() { return &registry; }
extern "C" __attribute__((visibility("default"))) char const* loaded_library() { return loaded.c_str(); }
