// Inner loops that exist once for each instruction set; kernels() picks the set of the CPU at hand, once.
#pragma once

#include <acl/acl.h>

#include <cstdint>

#include "math/gemm.h"

namespace emulator {

// A product of float rows with an operand read in place (see GemmOperand for lines and chunks).
struct Product {
  const float* a = nullptr;  // [rows, k]; dot() reads it up to k rounded up to 16, where it must hold zeros
  int64_t a_stride = 0;
  int64_t rows = 0;
  const void* b = nullptr;
  aclDataType b_dtype = ACL_FLOAT;
  int64_t line_stride = 0;
  int64_t chunk_stride = 16;
  int64_t columns = 0;
  int64_t k = 0;
  float* c = nullptr;  // [rows, columns]
  int64_t c_stride = 0;
  bool accumulate = false;  // add to c instead of overwriting it
};

struct Kernels {
  const char* instruction_set;
  int64_t panel_columns;  // width of a packed panel that keeps the registers of outer() full
  int64_t direct_rows;    // up to so many rows of A, reading B in place beats packing it

  void (*to_float)(const void* source, aclDataType dtype, float* target, int64_t count);
  void (*from_float)(const float* source, void* target, aclDataType dtype, int64_t count);

  void (*dot)(const Product& product);    // lines of B run along k, one for each column
  void (*outer)(const Product& product);  // lines of B run along n, one for each k; columns: a multiple of 16

  // panel[k][column] = B(k0 + k, n0 + column) for k < depth, zero where column >= columns; panel rows are `width` wide,
  // width a multiple of 16.
  void (*pack)(const GemmOperand& b, int64_t k0, int64_t depth, int64_t n0, int64_t columns, float* panel, int64_t width);

  float (*row_max)(const float* row, int64_t count);
  float (*row_exp)(float* row, int64_t count, float shift);        // row = exp(row - shift); returns the sum
  void (*scale_row)(float* row, int64_t count, float factor);
  void (*silu)(const float* x, float* y, int64_t count);           // y = x * sigmoid(x)
  float (*sum_of_squares)(const float* row, int64_t count);
  int32_t (*dot_int8)(const int8_t* a, const int8_t* b, int64_t count);  // exact up to 131,072 elements
};

const Kernels& kernels();

// One table per instruction set; null where the compiler cannot target it. ASCEND_EMULATOR_SIMD=avx2|portable
// narrows the choice, so that each table can be tested on one machine.
const Kernels* avx512_kernels();
const Kernels* avx2_kernels();
const Kernels* portable_kernels();

}  // namespace emulator
