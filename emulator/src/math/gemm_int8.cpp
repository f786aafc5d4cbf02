// Exact int8 products: columns of B are gathered into lines along k where they are not, then each is a dot product.

#include <algorithm>
#include <cstring>
#include <vector>

#include "math/gemm.h"
#include "math/kernels.h"
#include "math/parallel.h"

namespace emulator {

namespace {

constexpr int64_t kColumnBlock = 32;     // lines of 4 KiB at k = 4096 stay in a second-level cache
constexpr double kParallelWork = 1.6e6;  // multiply-adds that take about as long as waking a thread (10 us)

// Column `column` of B as k contiguous elements: in place, or copied to `line`.
const int8_t* column_of(const Int8Operand& b, int64_t column, int64_t k, int8_t* line) {
  if (b.along_k) {
    const int8_t* from = b.data + column * b.line_stride;
    if (b.chunk == 0) return from;
    for (int64_t i = 0; i < k; i += b.chunk, from += b.chunk_stride) std::memcpy(line + i, from, std::min(b.chunk, k - i));
    return line;
  }
  const int8_t* from = b.data + (b.chunk == 0 ? column : column / b.chunk * b.chunk_stride + column % b.chunk);
  for (int64_t i = 0; i < k; ++i) line[i] = from[i * b.line_stride];
  return line;
}

void columns(const GemmInt8& g, int64_t begin, int64_t end) {
  std::vector<int8_t> lines(kColumnBlock * g.k);
  const int8_t* block[kColumnBlock];
  for (int64_t first = begin; first < end; first += kColumnBlock) {
    const int64_t count = std::min(kColumnBlock, end - first);
    for (int64_t i = 0; i < count; ++i) block[i] = column_of(g.b, first + i, g.k, lines.data() + i * g.k);
    for (int64_t row = 0; row < g.m; ++row) {
      const int8_t* a = g.a + row * g.a_row_stride;
      int32_t* c = g.c + row * g.c_row_stride + first;
      for (int64_t i = 0; i < count; ++i) c[i] = kernels().dot_int8(a, block[i], g.k);
    }
  }
}

}  // namespace

Int8Operand int8_row_major(const int8_t* data, int64_t row_stride) { return {data, false, row_stride, 0, 0}; }

Int8Operand int8_row_major_transposed(const int8_t* data, int64_t row_stride) { return {data, true, row_stride, 0, 0}; }

Int8Operand int8_fractal(const FractalMatrix& matrix, bool transposed, int64_t batch_index) {
  const auto* data = static_cast<const int8_t*>(matrix.data) + batch_index * matrix.batch_stride();
  return {data, transposed, matrix.c0, matrix.c0, matrix.padded_rows * matrix.c0};
}

void gemm_int8(const GemmInt8& g) {
  const double column_work = static_cast<double>(std::max<int64_t>(g.m, 1)) * static_cast<double>(std::max<int64_t>(g.k, 1));
  const auto grain = std::max<int64_t>(kColumnBlock, static_cast<int64_t>(kParallelWork / column_work) + 1);
  parallel_for(0, g.n, grain, [&](int64_t begin, int64_t end) { columns(g, begin, end); });
}

}  // namespace emulator
