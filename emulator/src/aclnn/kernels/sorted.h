// Sorting along one dimension, for the kernels that need it.
#pragma once

#include <ATen/core/Tensor.h>

namespace emulator::aclnn {

struct Sorted {
  at::Tensor values;
  at::Tensor indices;  // int64
};

// Stable. at::sort moves pairs of value and index through comparisons; floats have a faster way (math/sort.h).
Sorted sorted(const at::Tensor& tensor, int64_t dim, bool descending);

}  // namespace emulator::aclnn
