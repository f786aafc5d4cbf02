// FRACTAL_NZ, the cube unit's native layout: a matrix [rows, cols] stored as [cols / C0][rows padded to 16][C0].
//
// C0 is 16 for two-byte (and four-byte) elements and 32 for one-byte elements (torch_npu FormatHelper, InferShapeNDToNZ).
// A 4-D KV cache [blocks, heads * dim / 16, block_size, 16] is the same layout, one matrix [block_size, heads * dim] a block.
#pragma once

#include <acl/acl.h>

#include <cstdint>

#include "core/tensor.h"

namespace emulator {

inline constexpr int64_t kFractalRows = 16;

int64_t fractal_c0(aclDataType dtype);  // width of a fractal in elements: 16, or 32 for one-byte types

inline int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// A batch of equal matrices in FRACTAL_NZ; batch elements lie one after another.
struct FractalMatrix {
  void* data = nullptr;
  int64_t element_bytes = 2;
  int64_t batch = 1;
  int64_t rows = 0;         // of the matrix, without padding
  int64_t cols = 0;
  int64_t padded_rows = 0;  // multiple of 16 (a KV cache block: its block size)
  int64_t c0 = 16;

  int64_t column_blocks() const { return (cols + c0 - 1) / c0; }
  int64_t batch_stride() const { return column_blocks() * padded_rows * c0; }  // elements
  int64_t offset(int64_t row, int64_t col) const { return (col / c0 * padded_rows + row) * c0 + col % c0; }
};

// The matrix behind a FRACTAL_NZ view, undoing the transposed strides with which torch presents weight.t().
// transposed tells whether the view's rows are the stored matrix's columns. Throws Failure if storage_sizes are not
// those of FRACTAL_NZ or the view is neither the whole matrix nor its transpose.
FractalMatrix fractal_matrix(const TensorView& view, bool* transposed);

// Storage sizes [..., N1, M1, 16, C0] of a base-format shape.
Dims fractal_storage_sizes(const Dims& sizes, aclDataType dtype);

// Row-major [batch, rows, cols] <-> FRACTAL_NZ. nd_to_nz writes zeros into the padding, as TransData does.
void nd_to_nz(const void* nd, const FractalMatrix& nz);
void nz_to_nd(const FractalMatrix& nz, void* nd);

}  // namespace emulator
