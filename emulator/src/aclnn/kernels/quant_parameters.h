// Scales of quantized operators: read from the types that carry them, and applied to exact int32 sums.
#pragma once

#include <cstdint>
#include <vector>

#include "aclnn/operator.h"

namespace emulator::aclnn {

// The scale inside a 64-bit quantization parameter (aclnnTransQuantParamV2): the upper 19 bits of a float32. The others
// are not wired up on the chip, whoever wrote them.
float scale_of_parameter(uint64_t parameter);

// One value for each of `count` columns from a tensor of one element or of `count`; 64-bit types hold parameters.
std::vector<float> column_values(const TensorView& tensor, int64_t count);

// What turns the sums of a row into its output: (sum + int_bias) * column_scale * row_scale + float_bias.
struct Dequantization {
  std::vector<float> column_scale;      // [n]; empty: the sums themselves are the output (int32)
  const int32_t* int_bias = nullptr;    // [n], optional
  std::vector<float> float_bias;        // [n], a bias or the offset of an int8 output; may be empty

  // `out` has n elements of type `dtype`; sums are overwritten.
  void apply(int32_t* sums, int64_t n, float row_scale, void* out, aclDataType dtype) const;
};

}  // namespace emulator::aclnn
