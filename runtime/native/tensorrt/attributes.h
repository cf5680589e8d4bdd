// The attributes of the operators. All are of one kind: an integer in a range, for most of them 0 or 1.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <vector>

namespace avsbg::tensorrt {

struct Attribute {
  char const* name;
  std::int32_t value;  // its default, until read_attributes changes it
  std::int32_t least = 0;
  std::int32_t most = 1;
};

using Attributes = std::vector<Attribute>;

// Sets `attributes` from the fields that TensorRT hands to a creator. In the build phase they come from a node and an
// absent one keeps its default; in the run-time phase they come from an engine, which holds all of them.
// Throws std::invalid_argument for a field that is unknown, missing, not one integer, or out of its range.
void read_attributes(Attributes& attributes, nvinfer1::PluginFieldCollection const* fields,
                     nvinfer1::TensorRTPhase phase);

}  // namespace avsbg::tensorrt
