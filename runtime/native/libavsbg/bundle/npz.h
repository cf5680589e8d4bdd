// Arrays of an .npz archive, as numpy writes it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "bundle/manifest.h"

namespace avsbg {

// An array in C order.
struct Array {
  DType dtype = DType::kFloat32;
  std::vector<std::int64_t> shape;
  std::vector<std::uint8_t> bytes;

  std::size_t elements() const { return dtype == DType::kBool ? bytes.size() : bytes.size() / size_of(dtype); }
  template <typename T>
  const T* as() const {
    return reinterpret_cast<const T*>(bytes.data());
  }
};
using Arrays = std::map<std::string, Array>;

// An archive could claim to unpack to anything; real vectors are tens of MB.
constexpr std::uint64_t kMaxVectorBytes = std::uint64_t{2} << 30;

// Reads the arrays `wanted` by name from a file's content, whose dtypes and shapes must be those given: nothing is
// allocated for what a file merely claims. Members are stored or deflated; encrypted ones, pickles and other byte orders
// are refused. `path` is for messages. Throws an Error of AVSBG_ERROR_BUNDLE.
Arrays read_npz(const std::string& content, const std::string& path, const std::map<std::string, TensorRecord>& wanted);

}  // namespace avsbg
