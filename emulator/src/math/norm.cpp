#include "math/norm.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "core/tensor.h"
#include "math/convert.h"
#include "math/kernels.h"
#include "math/parallel.h"
#include "math/scratch.h"

namespace emulator {

namespace {

constexpr int64_t kParallelElements = 32768;  // about 10 us of work

template <typename Pointer>
auto* row_of(Pointer* base, int64_t row, int64_t cols, aclDataType dtype) {
  using Byte = std::conditional_t<std::is_const_v<Pointer>, const char, char>;
  return static_cast<Byte*>(base) + row * cols * (element_bits(dtype) / 8);
}

// gamma and beta as floats, once for all rows: gamma gets its offset. Either may be absent.
struct Affine {
  const float* gamma = nullptr;
  const float* beta = nullptr;
};

Affine load_affine(const void* gamma, const void* beta, aclDataType dtype, float offset, int64_t cols, float* target) {
  Affine affine;
  if (gamma != nullptr) {
    to_float(gamma, dtype, target, cols);
    for (int64_t i = 0; i < cols && offset != 0.0f; ++i) target[i] += offset;
    affine.gamma = target;
  }
  if (beta != nullptr) {
    to_float(beta, dtype, target + cols, cols);
    affine.beta = target + cols;
  }
  return affine;
}

void apply(const Affine& affine, float factor, float* row, int64_t cols) {
  if (affine.gamma != nullptr && affine.beta != nullptr) {
    for (int64_t i = 0; i < cols; ++i) row[i] = row[i] * factor * affine.gamma[i] + affine.beta[i];
  } else if (affine.gamma != nullptr) {
    for (int64_t i = 0; i < cols; ++i) row[i] = row[i] * factor * affine.gamma[i];
  } else {
    for (int64_t i = 0; i < cols; ++i) row[i] = row[i] * factor + (affine.beta == nullptr ? 0.0f : affine.beta[i]);
  }
}

// Rounds a row of floats to dtype in place.
void round_row(float* row, int64_t cols, aclDataType dtype) {
  float* rounded = scratch(ScratchSlot::kRowTwo, cols);
  from_float(row, rounded, dtype, cols);
  to_float(rounded, dtype, row, cols);
}

// x, or x + residual, as floats.
void load_sum(const RmsNorm& n, int64_t r, float* row) {
  to_float(row_of(n.x, r, n.cols, n.dtype), n.dtype, row, n.cols);
  if (n.residual == nullptr) return;
  float* other = scratch(ScratchSlot::kRowTwo, n.cols);
  to_float(row_of(n.residual, r, n.cols, n.dtype), n.dtype, other, n.cols);
  for (int64_t i = 0; i < n.cols; ++i) row[i] += other[i];
  if (n.sum != nullptr) from_float(row, row_of(n.sum, r, n.cols, n.dtype), n.dtype, n.cols);
  if (n.round_sum) round_row(row, n.cols, n.dtype);
}

}  // namespace

void rms_norm(const RmsNorm& n) {
  float* parameters = scratch(ScratchSlot::kGemmRows, 2 * n.cols);
  const Affine affine = load_affine(n.gamma, n.bias, n.gamma_dtype, n.gamma_offset, n.cols, parameters);
  parallel_for(0, n.rows, kParallelElements / (n.cols + 1) + 1, [&](int64_t begin, int64_t end) {
    float* row = scratch(ScratchSlot::kRow, n.cols);
    for (int64_t r = begin; r < end; ++r) {
      load_sum(n, r, row);
      const float mean_square = kernels().sum_of_squares(row, n.cols) / static_cast<float>(n.cols);
      const float rstd = 1.0f / std::sqrt(mean_square + n.epsilon);
      if (n.rstd != nullptr) n.rstd[r] = rstd;
      if (n.round_before_gamma) {
        kernels().scale_row(row, n.cols, rstd);
        round_row(row, n.cols, n.dtype);
        apply(affine, 1.0f, row, n.cols);
      } else {
        apply(affine, rstd, row, n.cols);
      }
      if (n.y != nullptr) from_float(row, row_of(n.y, r, n.cols, n.dtype), n.dtype, n.cols);
      if (n.y_float != nullptr) std::copy_n(row, n.cols, n.y_float + r * n.cols);
    }
  });
}

void layer_norm(const LayerNorm& n) {
  float* parameters = scratch(ScratchSlot::kGemmRows, 2 * n.cols);
  const Affine affine = load_affine(n.gamma, n.beta, n.gamma_dtype, 0.0f, n.cols, parameters);
  parallel_for(0, n.rows, kParallelElements / (n.cols + 1) + 1, [&](int64_t begin, int64_t end) {
    float* row = scratch(ScratchSlot::kRow, n.cols);
    for (int64_t r = begin; r < end; ++r) {
      to_float(row_of(n.x, r, n.cols, n.dtype), n.dtype, row, n.cols);
      double total = 0;
      for (int64_t i = 0; i < n.cols; ++i) total += row[i];
      const float mean = static_cast<float>(total / static_cast<double>(n.cols));
      for (int64_t i = 0; i < n.cols; ++i) row[i] -= mean;
      const float variance = kernels().sum_of_squares(row, n.cols) / static_cast<float>(n.cols);
      const float rstd = 1.0f / std::sqrt(variance + n.epsilon);
      if (n.mean != nullptr) n.mean[r] = mean;
      if (n.rstd != nullptr) n.rstd[r] = rstd;
      apply(affine, rstd, row, n.cols);
      from_float(row, row_of(n.y, r, n.cols, n.dtype), n.dtype, n.cols);
    }
  });
}

}  // namespace emulator
