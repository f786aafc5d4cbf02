// Matrix products with fp16/bf16/fp32 operands, fp32 accumulation and one final rounding, as the cube unit computes.
//
// Right-hand operands are read in the layout that they have in device memory (row-major either way round, FRACTAL_NZ either
// way round); none is unpacked as a whole. Threads: parallel_for, only where a product is large enough to pay for it.
#pragma once

#include <acl/acl.h>

#include <cstdint>

#include "math/nz.h"

namespace emulator {

// The K x N operand B. Elements come in lines of 16-element chunks: for `along_k` a line is one n and chunks run along k
// (nn.Linear's weight [N, K], and FRACTAL_NZ of it); otherwise a line is one k and chunks run along n.
// Element (line, x) is at data[line * line_stride + x / 16 * chunk_stride + x % 16].
struct GemmOperand {
  const void* data = nullptr;
  aclDataType dtype = ACL_FLOAT16;
  bool along_k = false;
  int64_t line_stride = 0;
  int64_t chunk_stride = 16;
};

GemmOperand row_major(const void* data, aclDataType dtype, int64_t row_stride);             // B stored [K, N]
GemmOperand row_major_transposed(const void* data, aclDataType dtype, int64_t row_stride);  // B stored [N, K]
GemmOperand fractal(const FractalMatrix& matrix, aclDataType dtype, bool transposed, int64_t batch_index = 0);

// C[m, n] = alpha * A[m, k] B[k, n] + beta * D[m, n] + bias[n]. Strides in elements.
struct Gemm {
  int64_t m = 0, n = 0, k = 0;
  const void* a = nullptr;
  aclDataType a_dtype = ACL_FLOAT16;
  int64_t a_row_stride = 0;
  int64_t a_col_stride = 1;
  GemmOperand b;
  void* c = nullptr;
  aclDataType c_dtype = ACL_FLOAT16;
  int64_t c_row_stride = 0;
  int64_t c_col_stride = 1;
  float alpha = 1.0f;
  const void* bias = nullptr;  // [n], optional
  aclDataType bias_dtype = ACL_FLOAT16;
  float beta = 0.0f;
  const void* d = nullptr;  // read if beta is not 0; strides of 0 broadcast; may be c itself
  aclDataType d_dtype = ACL_FLOAT16;
  int64_t d_row_stride = 0;
  int64_t d_col_stride = 1;
};

void gemm(const Gemm& product);

// The K x N operand B of int8 products; lines and chunks as above, chunks `chunk` wide (32 in FRACTAL_NZ of int8).
struct Int8Operand {
  const int8_t* data = nullptr;
  bool along_k = false;
  int64_t line_stride = 0;
  int64_t chunk = 0;  // 0: a line is contiguous
  int64_t chunk_stride = 0;
};

Int8Operand int8_row_major(const int8_t* data, int64_t row_stride);             // B stored [K, N]
Int8Operand int8_row_major_transposed(const int8_t* data, int64_t row_stride);  // B stored [N, K]
Int8Operand int8_fractal(const FractalMatrix& matrix, bool transposed, int64_t batch_index = 0);

// C[m, n] = A[m, k] B[k, n] exactly; rows of A and C are contiguous.
struct GemmInt8 {
  int64_t m = 0, n = 0, k = 0;
  const int8_t* a = nullptr;
  int64_t a_row_stride = 0;
  Int8Operand b;
  int32_t* c = nullptr;
  int64_t c_row_stride = 0;
};

void gemm_int8(const GemmInt8& product);

}  // namespace emulator
