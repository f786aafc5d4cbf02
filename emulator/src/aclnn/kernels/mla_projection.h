// The products of MlaProlog: rows of bfloat16 or int8 times a weight in FRACTAL_NZ (or row-major), to float32.
#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor.h"

namespace emulator::aclnn {

// Rows [rows, width]: bfloat16 bits, or int8 with a scale for each row.
struct ProjectionInput {
  int64_t rows = 0, width = 0;
  std::vector<uint16_t> bf16;
  std::vector<int8_t> int8;
  std::vector<float> row_scale;  // of int8 rows
};

ProjectionInput projection_input(const TensorView& x, const TensorView& row_scale);
ProjectionInput rounded_rows(const std::vector<float>& values, int64_t width);
// round(row * smooth / scale) with scale = the row's largest magnitude / 127; smooth may be empty.
ProjectionInput quantized_rows(const std::vector<float>& values, int64_t width, const std::vector<float>& smooth);

// [rows, n]. A bfloat16 product is rounded to bfloat16; an int8 one is scaled by row and by column and not rounded.
std::vector<float> project(const ProjectionInput& x, const TensorView& weight, const TensorView& column_scale);

void round_to_bf16(std::vector<float>& values);

}  // namespace emulator::aclnn
