#include "aclnn/kernels/mla_projection.h"

#include "aclnn/kernels/contiguous.h"
#include "aclnn/kernels/float_values.h"
#include "aclnn/kernels/quantize_row.h"
#include "math/convert.h"
#include "math/gemm.h"

namespace emulator::aclnn {

namespace {

GemmOperand bf16_operand(const TensorView& weight) {
  if (!weight.is_fractal_nz()) return row_major(weight.data(), weight.dtype, weight.sizes[1]);
  bool transposed = false;
  const FractalMatrix matrix = fractal_matrix(weight, &transposed);
  return fractal(matrix, weight.dtype, transposed);
}

Int8Operand int8_operand(const TensorView& weight) {
  if (!weight.is_fractal_nz()) return int8_row_major(weight.data_as<int8_t>(), weight.sizes[1]);
  bool transposed = false;
  const FractalMatrix matrix = fractal_matrix(weight, &transposed);
  return int8_fractal(matrix, transposed);
}

std::vector<float> project_int8(const ProjectionInput& x, const TensorView& weight, const TensorView& column_scale) {
  const int64_t n = weight.sizes[1];
  std::vector<int32_t> sums(x.rows * n);
  gemm_int8({x.rows, n, x.width, x.int8.data(), x.width, int8_operand(weight), sums.data(), n});
  const std::vector<float> scale = float_values(column_scale);
  std::vector<float> result(sums.size());
  for (int64_t row = 0; row < x.rows; ++row) {
    for (int64_t col = 0; col < n; ++col) {
      result[row * n + col] = static_cast<float>(sums[row * n + col]) * x.row_scale[row] * scale[col];
    }
  }
  return result;
}

}  // namespace

ProjectionInput projection_input(const TensorView& x, const TensorView& row_scale) {
  const int64_t width = x.sizes.back(0);
  ProjectionInput input{width == 0 ? 0 : x.numel() / width, width, {}, {}, float_values(row_scale)};
  const DenseInput dense(x);
  if (x.dtype == ACL_INT8) {
    input.int8.assign(dense.data_as<int8_t>(), dense.data_as<int8_t>() + x.numel());
  } else {
    input.bf16.assign(dense.data_as<uint16_t>(), dense.data_as<uint16_t>() + x.numel());
  }
  return input;
}

ProjectionInput rounded_rows(const std::vector<float>& values, int64_t width) {
  ProjectionInput input{static_cast<int64_t>(values.size()) / width, width, std::vector<uint16_t>(values.size()), {}, {}};
  from_float(values.data(), input.bf16.data(), ACL_BF16, static_cast<int64_t>(values.size()));
  return input;
}

ProjectionInput quantized_rows(const std::vector<float>& values, int64_t width, const std::vector<float>& smooth) {
  ProjectionInput input{static_cast<int64_t>(values.size()) / width, width, {}, std::vector<int8_t>(values.size()), {}};
  for (int64_t row = 0; row < input.rows; ++row) {
    const float* factors = smooth.empty() ? nullptr : smooth.data();
    input.row_scale.push_back(quantize_row(&values[row * width], factors, width, &input.int8[row * width]));
  }
  return input;
}

std::vector<float> project(const ProjectionInput& x, const TensorView& weight, const TensorView& column_scale) {
  if (weight.dtype == ACL_INT8) return project_int8(x, weight, column_scale);
  const int64_t n = weight.sizes[1];
  std::vector<float> result(x.rows * n);
  Gemm product;
  product.m = x.rows;
  product.n = n;
  product.k = x.width;
  product.a = x.bf16.data();
  product.a_dtype = ACL_BF16;
  product.a_row_stride = x.width;
  product.b = bf16_operand(weight);
  product.c = result.data();
  product.c_dtype = ACL_FLOAT;
  product.c_row_stride = n;
  if (x.rows > 0) gemm(product);
  round_to_bf16(result);
  return result;
}

void round_to_bf16(std::vector<float>& values) {
  std::vector<uint16_t> rounded(values.size());
  from_float(values.data(), rounded.data(), ACL_BF16, static_cast<int64_t>(values.size()));
  to_float(rounded.data(), ACL_BF16, values.data(), static_cast<int64_t>(values.size()));
}

}  // namespace emulator::aclnn
