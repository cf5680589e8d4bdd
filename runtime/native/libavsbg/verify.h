// A model's clip graph against the bundle's test vectors: what PyTorch returned for the same inputs.
#pragma once

#include "model.h"

namespace avsbg {

// See avsbg_verify.
bool verify(const Model& model, double tolerance, avsbg_comparison_callback callback, void* user);

}  // namespace avsbg
