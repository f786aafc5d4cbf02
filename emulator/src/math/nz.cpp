#include "math/nz.h"

#include <algorithm>
#include <cstring>

#include "core/errors.h"

namespace emulator {

int64_t fractal_c0(aclDataType dtype) { return element_bits(dtype) == 8 ? 32 : 16; }

Dims fractal_storage_sizes(const Dims& sizes, aclDataType dtype) {
  if (sizes.rank() < 2) fail(kParamInvalid, "FRACTAL_NZ needs a tensor of at least 2 dimensions, got %d", sizes.rank());
  const int64_t c0 = fractal_c0(dtype);
  Dims result(sizes.data(), sizes.size() - 2);
  result.push_back(round_up(sizes.back(0), c0) / c0);
  result.push_back(round_up(sizes.back(1), kFractalRows) / kFractalRows);
  result.push_back(kFractalRows);
  result.push_back(c0);
  return result;
}

FractalMatrix fractal_matrix(const TensorView& view, bool* transposed) {
  const Dims& storage = view.storage_sizes;
  const int rank = view.rank();
  if (rank < 2 || storage.rank() != rank + 2) {
    fail(kParamInvalid, "a FRACTAL_NZ tensor of %d dimensions must have %d storage dimensions, got %d", rank, rank + 2,
         storage.rank());
  }
  FractalMatrix matrix;
  matrix.data = view.data();
  matrix.element_bytes = element_bits(view.dtype) / 8;
  matrix.c0 = storage.back(0);
  matrix.padded_rows = storage.back(1) * storage.back(2);
  for (int i = 0; i < rank - 2; ++i) matrix.batch *= view.sizes[i];
  // torch presents weight.t() as strides {1, k} over the untouched storage.
  const bool plain = view.strides.back(0) == 1 && (view.sizes.back(1) == 1 || view.strides.back(1) >= view.sizes.back(0));
  *transposed = !plain;
  if (!plain && view.strides.back(1) != 1) {
    fail(kParamInvalid, "a FRACTAL_NZ tensor must be a whole matrix or its transpose, but its strides end in %lld, %lld",
         static_cast<long long>(view.strides.back(1)), static_cast<long long>(view.strides.back(0)));
  }
  matrix.rows = plain ? view.sizes.back(1) : view.sizes.back(0);
  matrix.cols = plain ? view.sizes.back(0) : view.sizes.back(1);
  if (storage.back(1) != kFractalRows || matrix.c0 != fractal_c0(view.dtype) ||
      matrix.padded_rows != round_up(matrix.rows, kFractalRows) || storage.back(3) != matrix.column_blocks()) {
    fail(kParamInvalid, "storage dimensions [.., %lld, %lld, %lld, %lld] are not FRACTAL_NZ of a %lld x %lld %s matrix",
         static_cast<long long>(storage.back(3)), static_cast<long long>(storage.back(2)),
         static_cast<long long>(storage.back(1)), static_cast<long long>(storage.back(0)),
         static_cast<long long>(matrix.rows), static_cast<long long>(matrix.cols), dtype_name(view.dtype));
  }
  if (matrix.batch * matrix.batch_stride() > storage.product() - view.storage_offset) {
    fail(kParamInvalid, "a FRACTAL_NZ tensor of %lld matrices at offset %lld reaches beyond its storage of %lld elements",
         static_cast<long long>(matrix.batch), static_cast<long long>(view.storage_offset),
         static_cast<long long>(storage.product()));
  }
  return matrix;
}

void nd_to_nz(const void* nd, const FractalMatrix& nz) {
  const auto* source = static_cast<const char*>(nd);
  auto* target = static_cast<char*>(nz.data);
  const int64_t bytes = nz.element_bytes;
  for (int64_t b = 0; b < nz.batch; ++b) {
    for (int64_t col = 0; col < nz.cols; col += nz.c0) {
      const int64_t width = std::min(nz.c0, nz.cols - col);
      char* block = target + (b * nz.batch_stride() + nz.offset(0, col)) * bytes;
      const char* from = source + (b * nz.rows * nz.cols + col) * bytes;
      for (int64_t row = 0; row < nz.rows; ++row, block += nz.c0 * bytes, from += nz.cols * bytes) {
        std::memcpy(block, from, width * bytes);
        std::memset(block + width * bytes, 0, (nz.c0 - width) * bytes);
      }
      std::memset(block, 0, (nz.padded_rows - nz.rows) * nz.c0 * bytes);
    }
  }
}

void nz_to_nd(const FractalMatrix& nz, void* nd) {
  const auto* source = static_cast<const char*>(nz.data);
  auto* target = static_cast<char*>(nd);
  const int64_t bytes = nz.element_bytes;
  for (int64_t b = 0; b < nz.batch; ++b) {
    for (int64_t col = 0; col < nz.cols; col += nz.c0) {
      const int64_t width = std::min(nz.c0, nz.cols - col);
      const char* block = source + (b * nz.batch_stride() + nz.offset(0, col)) * bytes;
      char* to = target + (b * nz.rows * nz.cols + col) * bytes;
      for (int64_t row = 0; row < nz.rows; ++row, block += nz.c0 * bytes, to += nz.cols * bytes) {
        std::memcpy(to, block, width * bytes);
      }
    }
  }
}

}  // namespace emulator
