// Between the fake driver and the fake TensorRT.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

using Work = std::vector<std::function<void()>>;

// Tells which rule was broken, and ends the process.
template <class... Values>
[[noreturn]] void fake_violation(const char* format, Values... values) {
  std::fprintf(stderr, "fake: ");
  std::fprintf(stderr, format, values...);
  std::fprintf(stderr, "\n");
  std::_Exit(97);
}

void fake_check_device(const void* pointer, std::size_t bytes);
void fake_enqueue(CUstream stream, std::function<void()> work);
bool fake_is_capturing(CUstream stream);
