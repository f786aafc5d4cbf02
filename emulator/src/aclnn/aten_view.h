// ATen tensors that alias emulated device memory.
#pragma once

#include <ATen/core/Tensor.h>

#include "core/errors.h"
#include "core/tensor.h"

namespace emulator {

at::ScalarType aten_dtype(aclDataType dtype);  // throws Failure for a type that ATen lacks (int4)

// Aliases the view's memory, no copy. Base formats only: FRACTAL_NZ storage has no strides (see math/nz.h).
at::Tensor as_aten(const TensorView& view);

}  // namespace emulator
