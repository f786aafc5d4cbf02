// Weights of few bits as numbers: int8, or int4 packed eight to an int32, the first in the lowest bits.
#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor.h"

namespace emulator::aclnn {

constexpr int64_t kPackedInt4 = 8;

struct FewBitRows {
  const void* data;  // dense rows
  aclDataType dtype;  // ACL_INT8 or ACL_INT32
  int64_t columns;    // weights in a row

  // Row `row` before scale and offset.
  void read(int64_t row, float* out) const;
};

// (weight + offset) * scale, rounded to the activations' type before the cube multiplies: [rows, columns]. Row r takes
// scale and offset r / rows_of_scale, each `columns` wide or one number; `offset` may be null.
std::vector<uint16_t> dequantized(const FewBitRows& weight, int64_t rows, const float* scale, const float* offset,
                                  bool one_scale, int64_t rows_of_scale, aclDataType dtype);

}  // namespace emulator::aclnn
