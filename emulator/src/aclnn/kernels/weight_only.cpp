#include "aclnn/kernels/weight_only.h"

#include "math/convert.h"

namespace emulator::aclnn {

void FewBitRows::read(int64_t row, float* out) const {
  if (dtype == ACL_INT8) return to_float(static_cast<const int8_t*>(data) + row * columns, ACL_INT8, out, columns);
  const auto* words = static_cast<const uint32_t*>(data) + row * (columns / kPackedInt4);
  for (int64_t i = 0; i < columns; ++i) {
    const auto nibble = static_cast<int32_t>(words[i / kPackedInt4] >> (4 * (i % kPackedInt4)) & 0xf);
    out[i] = static_cast<float>(nibble < 8 ? nibble : nibble - 16);
  }
}

std::vector<uint16_t> dequantized(const FewBitRows& weight, int64_t rows, const float* scale, const float* offset,
                                  bool one_scale, int64_t rows_of_scale, aclDataType dtype) {
  const int64_t n = weight.columns, step = one_scale ? 0 : 1;
  std::vector<uint16_t> matrix(rows * n);
  std::vector<float> row(n);
  for (int64_t r = 0; r < rows; ++r) {
    weight.read(r, row.data());
    const int64_t first = one_scale ? 0 : r / rows_of_scale * n;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t at = first + i * step;
      row[i] = (row[i] + (offset == nullptr ? 0.0f : offset[at])) * scale[at];
    }
    from_float(row.data(), matrix.data() + r * n, dtype, n);
  }
  return matrix;
}

}  // namespace emulator::aclnn
