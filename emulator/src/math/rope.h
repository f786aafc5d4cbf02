// Rotary position embedding in both conventions, fp32 inside, one rounding at the end.
#pragma once

#include <acl/acl.h>

#include <cstdint>

namespace emulator {

enum class RopeStyle {
  kHalf,         // pairs (d, d + rotary_dim / 2): GPT-NeoX, Llama
  kInterleaved,  // pairs (2 d, 2 d + 1): GPT-J
  kQuarter,      // pairs (d, d + dim / 4) within each half
  kInterleavedHalf,  // pairs (2 d, 2 d + 1) in, (d, d + dim / 2) out: DeepSeek's
};

// One row of `dim` values; x and y do not overlap.
void rotate_row(RopeStyle style, const float* x, const float* cos, const float* sin, int64_t dim, float* y);

// y[t, h, :] = x[t, h, :] * cos[t] + rotate(x[t, h, :]) * sin[t]; dims beyond rotary_dim are copied. y may be x.
// Strides in elements. cos and sin rows hold rotary_dim values (both halves), or rotary_dim / 2 with half_width.
struct Rope {
  int64_t tokens = 0, heads = 0, dim = 0, rotary_dim = 0;
  RopeStyle style = RopeStyle::kHalf;
  aclDataType dtype = ACL_FLOAT16;
  const void* x = nullptr;
  int64_t x_token_stride = 0, x_head_stride = 0;
  void* y = nullptr;
  int64_t y_token_stride = 0, y_head_stride = 0;
  const void* cos = nullptr;
  const void* sin = nullptr;
  aclDataType table_dtype = ACL_FLOAT16;
  int64_t table_token_stride = 0;
  int64_t table_head_stride = 0;         // 0: one row for all heads
  bool half_width = false;
  const void* positions = nullptr;       // row of the tables for each token; null: row t
  aclDataType positions_dtype = ACL_INT64;
};

void rope(const Rope& rope);

}  // namespace emulator
