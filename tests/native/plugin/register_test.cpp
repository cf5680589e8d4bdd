// Opens the registering library as Triton does.
//
// Usage: register_test LIBRARY PLUGIN LIBNVINFER
//   LIBNVINFER is a path: it is opened first, and must then have been asked to load PLUGIN.
//   LIBNVINFER is a name: it must not be found, and LIBRARY must open all the same, with a complaint on stderr; 77 if a
//   TensorRT is installed, which answers to the name.
#include <dlfcn.h>

#include <cstdio>
#include <cstring>

int main(int argument_count, char** arguments) {
  if (argument_count != 4) {
    return 2;
  }
  bool const by_path = std::strchr(arguments[3], '/') != nullptr;
  void* const tensorrt = dlopen(arguments[3], RTLD_NOW | RTLD_LOCAL);
  if (by_path != (tensorrt != nullptr)) {
    return by_path ? 1 : 77;
  }
  if (dlopen(arguments[1], RTLD_LAZY | RTLD_LOCAL) == nullptr) {
    std::printf("%s\n", dlerror());
    return 1;
  }
  if (!by_path) {
    return 0;
  }
  auto const loaded_library = reinterpret_cast<char const* (*)()>(dlsym(tensorrt, "loaded_library"));
  std::printf("TensorRT was asked to load \"%s\"\n", loaded_library());
  return std::strcmp(loaded_library(), arguments[2]) == 0 ? 0 : 1;
}
