// How a product is cut into the inner loops of kernels.h: few rows read B in place, many rows pack it panel by panel.
#include "math/gemm.h"

#include <algorithm>
#include <cstring>

#include "core/errors.h"
#include "math/convert.h"
#include "math/kernels.h"
#include "math/parallel.h"
#include "math/scratch.h"

namespace emulator {

namespace {

constexpr int64_t kRowBlock = 1024;        // rows of A made floats at a time
constexpr int64_t kLargestDepth = 320;     // of a packed panel: 16 columns are 20 KiB, 48 columns 60 KiB
constexpr int64_t kCachedRows = 256;       // 256 rows x 320 k are 320 KiB, which a small second-level cache holds
constexpr int64_t kPackedColumns = 144;    // whole panels of 16 and of 48: 320 k x 144 columns are packed at a time
constexpr int64_t kColumnBlock = 512;      // columns of a direct product per pass: its fp32 results stay cached
constexpr int64_t kDirectDepth = 64;       // 64 lines of 512 columns: runs of 1 KiB, 64 KiB in all
constexpr double kParallelWork = 400e3;    // multiply-adds that take about as long as waking a thread (10 us)
constexpr int64_t kParallelElements = 50'000;  // conversions that do

bool is_half(aclDataType dtype) { return dtype == ACL_FLOAT16 || dtype == ACL_BF16; }

void require_float(aclDataType dtype, const char* what) {
  if (dtype != ACL_FLOAT && !is_half(dtype)) {
    fail(kInnerError, "gemm: %s is %s, not float16, bfloat16 or float32", what, dtype_name(dtype));
  }
}

int64_t byte_size(aclDataType dtype) { return dtype == ACL_INT8 ? 1 : is_half(dtype) ? 2 : 4; }

const char* advance(const void* data, aclDataType dtype, int64_t elements) {
  return static_cast<const char*>(data) + elements * byte_size(dtype);
}

// Rows of A as floats, each padded with zeros to a multiple of 16: what dot() needs.
struct FloatRows {
  const float* data;
  int64_t stride;
};

FloatRows float_rows(const Gemm& g, int64_t first, int64_t count) {
  if (g.a_dtype == ACL_FLOAT && g.a_col_stride == 1 && g.k % 16 == 0) {
    return {static_cast<const float*>(g.a) + first * g.a_row_stride, g.a_row_stride};
  }
  const int64_t padded = round_up(g.k, 16);
  const int64_t stride = padded + 16;  // not a power of two: rows must not share cache sets
  float* rows = scratch(ScratchSlot::kGemmRows, count * stride);
  const int64_t grain = kParallelElements / stride + 1;
  parallel_for(0, count, grain, [&](int64_t from, int64_t to) {
    for (int64_t r = from; r < to; ++r) {
      float* row = rows + r * stride;
      const int64_t start = (first + r) * g.a_row_stride;
      if (g.a_col_stride == 1) {
        to_float(advance(g.a, g.a_dtype, start), g.a_dtype, row, g.k);
      } else {
        for (int64_t i = 0; i < g.k; ++i) row[i] = load_float(g.a, g.a_dtype, start + i * g.a_col_stride);
      }
      std::fill(row + g.k, row + padded, 0.0f);
    }
  });
  return {rows, stride};
}

// Finishes `count` columns of one row: alpha, beta * D, bias, rounding.
void finish_row(const Gemm& g, int64_t row, int64_t column, int64_t count, float* sums) {
  if (g.alpha != 1.0f) kernels().scale_row(sums, count, g.alpha);
  if (g.beta != 0.0f) {
    const int64_t start = row * g.d_row_stride + column * g.d_col_stride;
    for (int64_t i = 0; i < count; ++i) sums[i] += g.beta * load_float(g.d, g.d_dtype, start + i * g.d_col_stride);
  }
  if (g.bias != nullptr) {
    float* bias = scratch(ScratchSlot::kRow, count);
    to_float(advance(g.bias, g.bias_dtype, column), g.bias_dtype, bias, count);
    for (int64_t i = 0; i < count; ++i) sums[i] += bias[i];
  }
  auto* out = static_cast<char*>(g.c) + (row * g.c_row_stride + column * g.c_col_stride) * byte_size(g.c_dtype);
  if (g.c_col_stride == 1) return from_float(sums, out, g.c_dtype, count);
  for (int64_t i = 0; i < count; ++i) from_float(sums + i, out + i * g.c_col_stride * byte_size(g.c_dtype), g.c_dtype, 1);
}

Product product_of(const Gemm& g, FloatRows a, int64_t rows) {
  Product p;
  p.a = a.data;
  p.a_stride = a.stride;
  p.rows = rows;
  p.b_dtype = g.b.dtype;
  p.line_stride = g.b.line_stride;
  p.chunk_stride = g.b.chunk_stride;
  p.k = g.k;
  return p;
}

// Columns [begin, end) of rows [first, first + rows) through packed panels; begin is a multiple of 16. A block of B is packed
// once for all rows, and a block of A stays in the second-level cache while all its panels pass over it.
void packed_columns(const Gemm& g, FloatRows a, int64_t first, int64_t rows, int64_t begin, int64_t end) {
  const Kernels& k = kernels();
  const int64_t width = k.panel_columns;
  const int64_t passes = std::max<int64_t>((g.k + kLargestDepth - 1) / kLargestDepth, 1);
  const int64_t depth = round_up((g.k + passes - 1) / passes, 16);  // no short last pass
  float* panels = scratch(ScratchSlot::kGemmPanel, kLargestDepth * kPackedColumns);
  float* sums = scratch(ScratchSlot::kGemmResult, rows * kPackedColumns);
  if (g.k == 0) std::fill_n(sums, rows * kPackedColumns, 0.0f);
  for (int64_t n0 = begin; n0 < end; n0 += kPackedColumns) {
    const int64_t stop = std::min(n0 + kPackedColumns, end);
    Product p;
    p.a_stride = a.stride;
    p.c_stride = kPackedColumns;
    for (int64_t k0 = 0; k0 < g.k; k0 += depth) {
      p.k = std::min(depth, g.k - k0);
      p.accumulate = k0 > 0;
      for (int64_t r0 = 0; r0 < rows; r0 += kCachedRows) {
        p.a = a.data + r0 * a.stride + k0;
        p.rows = std::min(kCachedRows, rows - r0);
        for (int64_t n = n0; n < stop; n += width) {
          const int64_t columns = std::min(width, stop - n);
          float* panel = panels + (n - n0) * depth;
          p.columns = p.line_stride = round_up(columns, 16);
          if (r0 == 0) k.pack(g.b, k0, p.k, n, columns, panel, p.line_stride);
          p.b = panel;
          p.c = sums + r0 * kPackedColumns + n - n0;
          k.outer(p);
        }
      }
    }
    for (int64_t r = 0; r < rows; ++r) finish_row(g, first + r, n0, stop - n0, sums + r * kPackedColumns);
  }
}

// outer() over a block of lines at a time. Row-major lines lie far apart: taking few columns of all of them at once would
// touch a page for every 100 bytes.
void outer_by_depth(const Gemm& g, int64_t n0, Product p) {
  const float* a = p.a;
  const int64_t depth = g.b.chunk_stride == 16 ? kDirectDepth : std::max<int64_t>(g.k, 1);
  for (int64_t k0 = 0; k0 < std::max<int64_t>(g.k, 1); k0 += depth) {
    p.a = a + k0;
    p.k = std::min(depth, g.k - k0);
    p.b = advance(g.b.data, g.b.dtype, k0 * g.b.line_stride + n0 / 16 * g.b.chunk_stride);
    p.accumulate = k0 > 0;
    kernels().outer(p);
  }
}

// The same, reading B where it lies. The last columns of a row-major operand may not fill a chunk; those are packed.
void direct_columns(const Gemm& g, FloatRows a, int64_t first, int64_t rows, int64_t begin, int64_t end) {
  Product p = product_of(g, a, rows);
  p.c_stride = kColumnBlock;
  const int64_t whole = g.b.along_k ? end : end / 16 * 16;
  for (int64_t n0 = begin; n0 < whole; n0 += kColumnBlock) {
    p.columns = std::min(kColumnBlock, whole - n0);
    p.c = scratch(ScratchSlot::kGemmResult, rows * kColumnBlock);
    if (g.b.along_k) {
      p.b = advance(g.b.data, g.b.dtype, n0 * g.b.line_stride);
      kernels().dot(p);
    } else {
      outer_by_depth(g, n0, p);
    }
    for (int64_t r = 0; r < rows; ++r) finish_row(g, first + r, n0, p.columns, p.c + r * kColumnBlock);
  }
  if (whole < end) packed_columns(g, a, first, rows, std::max(whole, begin), end);
}

}  // namespace

GemmOperand row_major(const void* data, aclDataType dtype, int64_t row_stride) { return {data, dtype, false, row_stride, 16}; }

GemmOperand row_major_transposed(const void* data, aclDataType dtype, int64_t row_stride) {
  return {data, dtype, true, row_stride, 16};
}

GemmOperand fractal(const FractalMatrix& matrix, aclDataType dtype, bool transposed, int64_t batch_index) {
  if (matrix.c0 != 16) fail(kInnerError, "gemm: a FRACTAL_NZ operand must have 16-element fractals");
  const auto* data = static_cast<const char*>(matrix.data) + batch_index * matrix.batch_stride() * matrix.element_bytes;
  return {data, dtype, transposed, 16, matrix.padded_rows * 16};
}

void gemm(const Gemm& g) {
  require_float(g.a_dtype, "A");
  require_float(g.b.dtype, "B");
  require_float(g.c_dtype, "C");
  if (g.m == 0 || g.n == 0) return;
  for (int64_t first = 0; first < g.m; first += kRowBlock) {
    const int64_t rows = std::min(kRowBlock, g.m - first);
    const FloatRows a = float_rows(g, first, rows);
    const auto body = rows <= kernels().direct_rows ? direct_columns : packed_columns;
    // Work is handed out in units of a panel, so that no two threads pack the same columns.
    const int64_t unit = kernels().panel_columns;
    const int64_t units = (g.n + unit - 1) / unit;
    const double unit_work = static_cast<double>(rows) * unit * std::max<int64_t>(g.k, 1);
    const auto grain = static_cast<int64_t>(kParallelWork / unit_work) + 1;
    parallel_for(0, units, grain, [&](int64_t from, int64_t to) {
      body(g, a, first, rows, from * unit, std::min(to * unit, g.n));
    });
  }
}

}  // namespace emulator
