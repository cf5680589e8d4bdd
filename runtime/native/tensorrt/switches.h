// The attributes of the operators. All are of one kind: an integer that is 0 or 1.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <vector>

namespace avsbg::tensorrt {

struct Switch {
  char const* name;
  std::int32_t value;  // its default, until read_switches changes it
};

using Switches = std::vector<Switch>;

// Sets `switches` from the fields that TensorRT hands to a creator. In the build phase they come from a node and an
// absent one keeps its default; in the run-time phase they come from an engine, which holds all of them.
// Throws std::invalid_argument for a field that is unknown, missing, not one integer, or neither 0 nor 1.
void read_switches(Switches& switches, nvinfer1::PluginFieldCollection const* fields, nvinfer1::TensorRTPhase phase);

}  // namespace avsbg::tensorrt
