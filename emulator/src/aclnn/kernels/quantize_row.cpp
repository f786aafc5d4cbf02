#include "aclnn/kernels/quantize_row.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "math/convert.h"

namespace emulator::aclnn {

float quantize_row(const float* x, const float* smooth, int64_t count, int8_t* y) {
  std::vector<float> moved(x, x + count);
  float largest = 0.0f;
  for (int64_t i = 0; i < count; ++i) {
    if (smooth != nullptr) moved[i] *= smooth[i];
    largest = std::max(largest, std::abs(moved[i]));
  }
  const float scale = largest / 127.0f, divisor = scale == 0.0f ? 1.0f : scale;
  for (float& value : moved) value /= divisor;
  if (y != nullptr) from_float(moved.data(), y, ACL_INT8, count);
  return scale;
}

}  // namespace emulator::aclnn
