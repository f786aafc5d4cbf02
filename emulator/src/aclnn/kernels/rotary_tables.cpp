#include "aclnn/kernels/rotary_tables.h"

#include <algorithm>
#include <vector>

#include "aclnn/kernels/contiguous.h"
#include "math/convert.h"

namespace emulator::aclnn {

namespace {

// Row offset of a table for row index `row` of x, dimensions of size 1 repeated.
int64_t table_offset(const TensorView& x, const TensorView& table, int64_t row) {
  int64_t offset = 0, stride = table.sizes.back(0);
  for (int i = 1; i < x.rank(); ++i) {
    const int64_t at = row % x.sizes.back(i);
    row /= x.sizes.back(i);
    if (table.sizes.back(i) != 1) offset += at * stride;
    stride *= table.sizes.back(i);
  }
  return offset;
}

}  // namespace

void rotate_broadcast(const TensorView& x, const TensorView& cos, const TensorView& sin, RopeStyle style, const TensorView& y) {
  const DenseInput in_x(x), in_cos(cos), in_sin(sin);
  const DenseOutput out(y);
  const int64_t dim = x.sizes.back(0), width = cos.sizes.back(0), rows = dim == 0 ? 0 : x.numel() / dim;
  const int64_t bytes = element_bits(x.dtype) / 8, table_bytes = element_bits(cos.dtype) / 8;
  std::vector<float> buffer(2 * dim + 2 * width);
  float *row = buffer.data(), *rotated = row + dim, *cosines = rotated + dim, *sines = cosines + width;
  int64_t loaded = -1;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t at = table_offset(x, cos, r);
    if (at != loaded) {
      to_float(in_cos.data_as<char>() + at * table_bytes, cos.dtype, cosines, width);
      to_float(in_sin.data_as<char>() + at * table_bytes, sin.dtype, sines, width);
      loaded = at;
    }
    to_float(in_x.data_as<char>() + r * dim * bytes, x.dtype, row, dim);
    rotate_row(style, row, cosines, sines, width, rotated);
    std::copy(row + width, row + dim, rotated + width);
    from_float(rotated, out.data_as<char>() + r * dim * bytes, x.dtype, dim);
  }
}

void check_tables(const TensorView& x, const char* name, const TensorView& cos, const TensorView& sin) {
  require_sizes(sin, "sin", cos.sizes);
  require_same_dtype(sin, "sin", cos, "cos");
  require(cos.rank() == x.rank(), "cos has %d dimensions, but %s has %d.", cos.rank(), name, x.rank());
  for (int i = 1; i < x.rank(); ++i) {
    require(cos.sizes.back(i) == 1 || cos.sizes.back(i) == x.sizes.back(i), "cos %s cannot be broadcast to %s %s.",
            to_string(cos.sizes).c_str(), name, to_string(x.sizes).c_str());
  }
}

Work rotary_work(const TensorView& x) {
  const double bytes = static_cast<double>(size_in_bytes(x.sizes, x.dtype));
  return {.vector_flops = 4.0 * static_cast<double>(x.numel()), .read_bytes = bytes, .written_bytes = bytes};
}

}  // namespace emulator::aclnn
