// The part of CUDA that TensorRT's headers need.
#pragma once

#include "cuda_runtime.h"
