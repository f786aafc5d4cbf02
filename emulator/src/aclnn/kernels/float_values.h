// Whole tensors as row-major values, for kernels whose arithmetic is small beside what surrounds them.
#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor.h"

namespace emulator::aclnn {

std::vector<float> float_values(const TensorView& view);  // of an undefined view: none
std::vector<int64_t> int_values(const TensorView& view);  // of any integer type, or bool

// Rounds to the view's type (int8 to nearest even, saturated); an undefined view takes nothing.
void store_values(const TensorView& view, const std::vector<float>& values);
void store_values(const TensorView& view, const std::vector<int64_t>& values);

}  // namespace emulator::aclnn
