// Quantize, which divides by its scales, and AscendAntiQuant, which undoes AscendQuant.
// Semantics: hicann/ops-nn, quant/{quantize,ascend_anti_quant}/docs.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "aclnn/kernels/contiguous.h"
#include "aclnn/kernels/float_values.h"
#include "aclnn_arguments.h"

namespace emulator::aclnn {

namespace {

// Which element of a parameter of `count` elements goes with element i of x: one for all, or one for each along axis.
int64_t parameter_at(const TensorView& x, int64_t axis, int64_t count, int64_t i) {
  if (count == 1) return 0;
  int64_t inner = 1;
  for (int d = static_cast<int>(axis) + 1; d < x.rank(); ++d) inner *= x.sizes[d];
  return i / inner % x.sizes[static_cast<int>(axis)];
}

void check_parameter(const TensorView& parameter, const char* name, const TensorView& x, int64_t axis) {
  const int64_t size = x.sizes[static_cast<int>(axis)];
  require(parameter.numel() == 1 || parameter.numel() == size, "%s has %lld elements, but must have 1 or %lld.", name,
          static_cast<long long>(parameter.numel()), static_cast<long long>(size));
}

template <typename T>
void store_rounded(const TensorView& out, const std::vector<float>& values) {
  const DenseOutput dense(out);
  constexpr auto kLow = static_cast<double>(std::numeric_limits<T>::min()), kHigh = static_cast<double>(std::numeric_limits<T>::max());
  for (size_t i = 0; i < values.size(); ++i) {
    dense.data_as<T>()[i] = static_cast<T>(std::clamp(static_cast<double>(std::nearbyint(values[i])), kLow, kHigh));
  }
}

}  // namespace

ACLNN_CHECK(Quantize) {
  require_rank(a.x, "x", 1, 8);
  require_dtype(a.x, "x", {ACL_FLOAT, ACL_FLOAT16, ACL_BF16});
  require_dtype(a.scales, "scales", {ACL_FLOAT, ACL_BF16});
  if (a.scales.dtype == ACL_BF16) require_dtype(a.x, "x", {ACL_BF16});
  const int64_t axis = require_dim(a.axis, a.x, "axis");
  check_parameter(a.scales, "scales", a.x, axis);
  if (a.zeroPoints.defined()) {
    require_dtype(a.zeroPoints, "zeroPoints", {ACL_INT32, ACL_INT8, ACL_UINT8, ACL_FLOAT, ACL_BF16});
    check_parameter(a.zeroPoints, "zeroPoints", a.x, axis);
  }
  require(a.dtype == ACL_INT8 || a.dtype == ACL_UINT8 || a.dtype == ACL_INT32, "dtype is %s, but must be int8, uint8 or int32.",
          dtype_name(a.dtype));
  require_dtype(a.out, "out", {a.dtype});
  require_sizes(a.out, "out", a.x.sizes);
}
ACLNN_KERNEL(Quantize) {
  const int64_t axis = require_dim(a.axis, a.x, "axis");
  std::vector<float> values = float_values(a.x);
  const std::vector<float> scales = float_values(a.scales), points = float_values(a.zeroPoints);
  for (int64_t i = 0; i < static_cast<int64_t>(values.size()); ++i) {
    values[i] /= scales[parameter_at(a.x, axis, static_cast<int64_t>(scales.size()), i)];
    if (!points.empty()) values[i] += points[parameter_at(a.x, axis, static_cast<int64_t>(points.size()), i)];
  }
  switch (a.dtype) {
    case ACL_INT8: return store_rounded<int8_t>(a.out, values);
    case ACL_UINT8: return store_rounded<uint8_t>(a.out, values);
    default: return store_rounded<int32_t>(a.out, values);
  }
}

// y = (x + offset) * scale, or * scale squared. Implemented: int8; int4 in int32 is refused.
ACLNN_CHECK(AscendAntiQuant) {
  if (a.x.dtype != ACL_INT8) fail(kRuntimeError, "the emulator implements x of int8 only, not %s.", dtype_name(a.x.dtype));
  require_dtype(a.scale, "scale", {ACL_FLOAT, ACL_BF16});
  check_parameter(a.scale, "scale", a.x, a.x.rank() - 1);
  if (a.offset.defined()) {
    require_same_dtype(a.offset, "offset", a.scale, "scale");
    require_sizes(a.offset, "offset", a.scale.sizes);
  }
  require(a.dstType == a.y.dtype, "dstType is %lld, but y is %s.", static_cast<long long>(a.dstType), dtype_name(a.y.dtype));
  if (chip().product == kAtlasInference) {
    require_dtype(a.y, "y", {ACL_FLOAT16});
  } else {
    require_dtype(a.y, "y", {ACL_FLOAT16, ACL_BF16});
  }
  require_sizes(a.y, "y", a.x.sizes);
}
ACLNN_KERNEL(AscendAntiQuant) {
  std::vector<float> values = float_values(a.x);
  const std::vector<float> scale = float_values(a.scale), offset = float_values(a.offset);
  for (int64_t i = 0; i < static_cast<int64_t>(values.size()); ++i) {
    const int64_t at = parameter_at(a.x, a.x.rank() - 1, static_cast<int64_t>(scale.size()), i);
    const float factor = a.sqrtMode ? scale[at] * scale[at] : scale[at];
    values[i] = (values[i] + (offset.empty() ? 0.0f : offset[at])) * factor;
  }
  store_values(a.y, values);
}

}  // namespace emulator::aclnn
