#include "math/rope.h"

#include <algorithm>

#include "core/tensor.h"
#include "math/convert.h"
#include "math/parallel.h"
#include "math/scratch.h"

namespace emulator {

namespace {

constexpr int64_t kParallelElements = 16384;

int64_t table_row(const Rope& op, int64_t token) {
  if (op.positions == nullptr) return token;
  return op.positions_dtype == ACL_INT64 ? static_cast<const int64_t*>(op.positions)[token]
                                         : static_cast<const int32_t*>(op.positions)[token];
}

// A table row at full width: a half-width row serves both halves, or both members of each pair.
void load_table(const Rope& op, const void* table, int64_t token, int64_t head, float* target) {
  const int64_t bytes = element_bits(op.table_dtype) / 8;
  const int64_t at = table_row(op, token) * op.table_token_stride + head * op.table_head_stride;
  const auto* source = static_cast<const char*>(table) + at * bytes;
  if (!op.half_width) return to_float(source, op.table_dtype, target, op.rotary_dim);
  const int64_t half = op.rotary_dim / 2;
  to_float(source, op.table_dtype, target, half);
  if (op.style == RopeStyle::kHalf) {
    std::copy_n(target, half, target + half);
    return;
  }
  for (int64_t i = half - 1; i >= 0; --i) target[2 * i] = target[2 * i + 1] = target[i];
}

// Rotates the pairs (x[i], x[i + gap]) for i < count.
void rotate_pairs(const float* x, const float* cos, const float* sin, int64_t count, int64_t gap, float* y) {
  for (int64_t i = 0; i < count; ++i) {
    y[i] = x[i] * cos[i] - x[i + gap] * sin[i];
    y[i + gap] = x[i + gap] * cos[i + gap] + x[i] * sin[i + gap];
  }
}

}  // namespace

void rotate_row(RopeStyle style, const float* x, const float* cos, const float* sin, int64_t dim, float* y) {
  const int64_t half = dim / 2, quarter = dim / 4;
  switch (style) {
    case RopeStyle::kHalf: return rotate_pairs(x, cos, sin, half, half, y);
    case RopeStyle::kQuarter:
      rotate_pairs(x, cos, sin, quarter, quarter, y);
      return rotate_pairs(x + half, cos + half, sin + half, quarter, quarter, y + half);
    case RopeStyle::kInterleaved:
      for (int64_t i = 0; i < dim; i += 2) rotate_pairs(x + i, cos + i, sin + i, 1, 1, y + i);
      return;
    case RopeStyle::kInterleavedHalf:
      for (int64_t i = 0; i < half; ++i) {
        y[i] = x[2 * i] * cos[i] - x[2 * i + 1] * sin[i];
        y[i + half] = x[2 * i + 1] * cos[i + half] + x[2 * i] * sin[i + half];
      }
  }
}

void rope(const Rope& op) {
  const int64_t bytes = element_bits(op.dtype) / 8;
  const int64_t rotary = op.rotary_dim;
  parallel_for(0, op.tokens, kParallelElements / (op.heads * op.dim + 1) + 1, [&](int64_t begin, int64_t end) {
    float* cos = scratch(ScratchSlot::kRow, 2 * rotary);
    float* sin = cos + rotary;
    float* x = scratch(ScratchSlot::kRowTwo, 2 * op.dim);
    float* y = x + op.dim;
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t h = 0; h < op.heads; ++h) {
        if (h == 0 || op.table_head_stride != 0) {
          load_table(op, op.cos, t, h, cos);
          load_table(op, op.sin, t, h, sin);
        }
        const auto* source = static_cast<const char*>(op.x) + (t * op.x_token_stride + h * op.x_head_stride) * bytes;
        auto* target = static_cast<char*>(op.y) + (t * op.y_token_stride + h * op.y_head_stride) * bytes;
        to_float(source, op.dtype, x, op.dim);
        rotate_row(op.style, x, cos, sin, rotary, y);
        std::copy(x + rotary, x + op.dim, y + rotary);
        from_float(y, target, op.dtype, op.dim);
      }
    }
  });
}

}  // namespace emulator
