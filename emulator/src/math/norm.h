// Root-mean-square and layer normalization of rows, fp32 inside.
#pragma once

#include <acl/acl.h>

#include <cstdint>

namespace emulator {

// One normalized row set: rows are contiguous and `cols` wide. Null pointers mean "absent".
struct RmsNorm {
  int64_t rows = 0, cols = 0;
  aclDataType dtype = ACL_FLOAT16;  // of x, residual, sum and y
  const void* x = nullptr;
  const void* residual = nullptr;   // added to x first
  void* sum = nullptr;              // that sum, rounded to dtype; may be x or residual
  bool round_sum = true;            // normalize the rounded sum; false: the exact one
  const void* gamma = nullptr;
  aclDataType gamma_dtype = ACL_FLOAT16;
  float gamma_offset = 0.0f;        // 1 for Gemma: y = x / rms * (1 + gamma)
  bool round_before_gamma = false;  // x / rms is rounded to dtype before gamma multiplies it
  const void* bias = nullptr;       // added after gamma; gamma_dtype
  float epsilon = 1e-6f;
  void* y = nullptr;
  float* y_float = nullptr;         // the result before rounding, for fused casts and quantization
  float* rstd = nullptr;            // [rows], 1 / rms
};

void rms_norm(const RmsNorm& norm);

struct LayerNorm {
  int64_t rows = 0, cols = 0;
  aclDataType dtype = ACL_FLOAT16;
  const void* x = nullptr;
  const void* gamma = nullptr;
  const void* beta = nullptr;
  aclDataType gamma_dtype = ACL_FLOAT16;
  float epsilon = 1e-5f;
  void* y = nullptr;
  float* mean = nullptr;  // [rows]
  float* rstd = nullptr;  // [rows]
};

void layer_norm(const LayerNorm& norm);

}  // namespace emulator
