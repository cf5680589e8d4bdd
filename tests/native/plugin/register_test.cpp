// Opens the registering library as Triton does. Usage: register_test LIBRARY EXPECTED [LIBNVINFER]
// With a (stand-in for) libnvinfer open, EXPECTED is the plugin that it must have been asked to load; without, the
// library must open all the same and leave its complaint on stderr.
#include <dlfcn.h>

#include <cstdio>
#include <cstring>

int main(int argument_count, char** arguments) {
  void* const tensorrt = argument_count > 3 ? dlopen(arguments[3], RTLD_NOW | RTLD_LOCAL) : nullptr;
  if (dlopen(arguments[1], RTLD_LAZY | RTLD_LOCAL) == nullptr) {
    std::printf("%s\n", dlerror());
    return 1;
  }
  if (tensorrt == nullptr) {
    return argument_count > 3;
  }
  auto const loaded_library = reinterpret_cast<char const* (*)()>(dlsym(tensorrt, "loaded_library"));
  std::printf("TensorRT was asked to load \"%s\"\n", loaded_library());
  return std::strcmp(loaded_library(), arguments[2]) == 0 ? 0 : 1;
}
