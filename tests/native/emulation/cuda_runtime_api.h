// What TensorRT's headers want of CUDA.
#pragma once

#include "cuda_runtime.h"
