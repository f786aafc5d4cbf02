// Quantization of activations and of scales: AscendQuantV3, DynamicQuant, TransQuantParam.
// Semantics and limits by product: hicann/ops-nn, quant/{ascend_quant_v2,dynamic_quant,dynamic_quant_v2,
// trans_quant_param_v2}/docs.
//
// Implemented: int8 results. int4 (packed into int32) and the fp8 types are refused as not implemented.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string_view>
#include <vector>

#include "aclnn/kernels/contiguous.h"
#include "aclnn/kernels/float_values.h"
#include "aclnn/kernels/quant_parameters.h"
#include "aclnn_arguments.h"
#include "math/convert.h"

namespace emulator::aclnn {

namespace {

constexpr int64_t kRowAlignment310p = 32;  // aclnnDynamicQuant's document: elements of x's last dimension

int64_t rows_of(const TensorView& x) { return x.sizes.back(0) == 0 ? 0 : x.numel() / x.sizes.back(0); }

void require_int8(const TensorView& y, int64_t dst_type) {
  if (chip().product == kAtlasInference) {
    require(dst_type == ACL_INT8, "dstType is %lld, but must be 2 (INT8) on %s.", static_cast<long long>(dst_type),
            chip().soc_version);
  } else if (dst_type != ACL_INT8) {
    fail(kRuntimeError, "the emulator implements dstType 2 (INT8) only, not %lld.", static_cast<long long>(dst_type));
  }
  require_dtype(y, "y", {ACL_INT8});
}

// ---- AscendQuantV3: y = round(x * scale + offset) ----

using Rounding = float (*)(float);

Rounding rounding_of(std::string_view mode) {
  if (mode == "round") return std::nearbyintf;  // the mode of the process: ties to even, as the vector unit's
  if (mode == "ceil") return std::ceil;
  if (mode == "floor") return std::floor;
  if (mode == "trunc") return std::trunc;
  return nullptr;
}

// A scale of one dimension has one element, or one for each element of `axis`.
void check_scale(const TensorView& scale, const char* name, const TensorView& x, int64_t axis) {
  require_rank(scale, name, 1, x.rank());
  if (scale.rank() == 1) {
    require(scale.sizes[0] == 1 || scale.sizes[0] == x.sizes[axis], "%s has %lld elements, but must have 1 or %lld.", name,
            static_cast<long long>(scale.sizes[0]), static_cast<long long>(x.sizes[axis]));
    return;
  }
  require(scale.rank() == x.rank(), "%s has %d dimensions, but must have 1 or those of x.", name, scale.rank());
  for (int i = 0; i < x.rank(); ++i) {
    require(scale.sizes[i] == 1 || (i == axis && scale.sizes[i] == x.sizes[i]),
            "%s has sizes %s, but all must be 1 save that of axis, %lld.", name, to_string(scale.sizes).c_str(),
            static_cast<long long>(x.sizes[axis]));
  }
}

void check_ascend_quant(const AscendQuantV3Args& a) {
  require_rank(a.x, "x", 1, 8);
  require_dtype(a.x, "x", {ACL_FLOAT, ACL_FLOAT16, ACL_BF16});
  require_dtype(a.scale, "scale", {ACL_FLOAT, ACL_FLOAT16, ACL_BF16});
  if (a.x.dtype != ACL_FLOAT) require_same_dtype(a.scale, "scale", a.x, "x");
  const int64_t axis = require_dim(a.axis, a.x, "axis");
  const int64_t from_last = a.x.rank() - 1 - axis;
  require(from_last <= (chip().product == kAtlasInference ? 0 : 1), "axis is %d, but only the last %s of x may be chosen on %s.",
          a.axis, chip().product == kAtlasInference ? "dimension" : "two dimensions", chip().soc_version);
  check_scale(a.scale, "scale", a.x, axis);
  if (a.offset.defined()) {
    require_same_dtype(a.offset, "offset", a.scale, "scale");
    require_sizes(a.offset, "offset", a.scale.sizes);
  }
  require(rounding_of(a.roundMode) != nullptr, "roundMode is '%s', but must be round, ceil, trunc or floor.",
          a.roundMode.c_str());
  require_int8(a.y, a.dstType);
  require_sizes(a.y, "y", a.x.sizes);
}

void run_ascend_quant(const AscendQuantV3Args& a) {
  const int64_t axis = a.axis < 0 ? a.axis + a.x.rank() : a.axis;
  const int64_t columns = a.x.sizes.back(0), along = a.x.sizes[axis], rows = rows_of(a.x);
  if (a.x.numel() == 0) return;
  const DenseInput x(a.x);
  const DenseOutput y(a.y);
  std::vector<float> scale = column_values(a.scale, along);
  if (a.sqrtMode) std::transform(scale.begin(), scale.end(), scale.begin(), [](float s) { return s * s; });
  const std::vector<float> offset = a.offset.defined() ? column_values(a.offset, along) : std::vector<float>(along, 0.0f);
  const Rounding round = rounding_of(a.roundMode);
  const bool by_column = axis == a.x.rank() - 1;
  const int64_t bytes = element_bits(a.x.dtype) / 8;
  std::vector<float> row(columns);
  for (int64_t r = 0; r < rows; ++r) {
    to_float(x.data_as<char>() + r * columns * bytes, a.x.dtype, row.data(), columns);
    for (int64_t c = 0; c < columns; ++c) {
      const int64_t at = by_column ? c : r % along;
      row[c] = round(row[c] * scale[at] + offset[at]);
    }
    from_float(row.data(), y.data_as<int8_t>() + r * columns, ACL_INT8, columns);
  }
}

// ---- DynamicQuant: a scale for each row, from the row ----

struct DynamicQuantization {
  const TensorView& x;
  const TensorView& smooth;  // may be undefined
  const TensorView& y;
  const TensorView& scale;
  const TensorView& offset;  // undefined: symmetric
  const TensorView& groups;  // [experts]: rows up to which each row of smooth [experts, columns] applies; may be undefined
};

void check_row_values(const TensorView& tensor, const char* name, const TensorView& x) {
  require_dtype(tensor, name, {ACL_FLOAT});
  require_sizes(tensor, name, Dims(x.sizes.data(), x.sizes.size() - 1));
}

void check_dynamic(const DynamicQuantization& q, int64_t dst_type) {
  require_rank(q.x, "x", 2, 8);
  const bool is_310p = chip().product == kAtlasInference;
  if (is_310p) {
    require_dtype(q.x, "x", {ACL_FLOAT16});
    require(q.x.sizes.back(0) % kRowAlignment310p == 0, "the last dimension of x is %lld, but must be a multiple of 32 on %s.",
            static_cast<long long>(q.x.sizes.back(0)), chip().soc_version);
    require(!q.offset.defined(), "only symmetric quantization is supported on %s.", chip().soc_version);
    // CANN takes it and leaves it out of the computation; a wrong result with a success code helps nobody.
    require(!q.smooth.defined(), "smoothScales does not take part in the computation on %s.", chip().soc_version);
  } else {
    require_dtype(q.x, "x", {ACL_FLOAT16, ACL_BF16});
  }
  if (q.smooth.defined()) {
    require_same_dtype(q.smooth, "smoothScales", q.x, "x");
    if (q.groups.defined()) {
      require_dtype(q.groups, "groupIndex", {ACL_INT32});
      require_rank(q.groups, "groupIndex", 1, 1);
      require_sizes(q.smooth, "smoothScales", {q.groups.sizes[0], q.x.sizes.back(0)});
    } else {
      require_sizes(q.smooth, "smoothScales", {q.x.sizes.back(0)});
    }
  }
  require_int8(q.y, dst_type);
  require_sizes(q.y, "yOut", q.x.sizes);
  check_row_values(q.scale, "scaleOut", q.x);
  if (q.offset.defined()) check_row_values(q.offset, "offsetOut", q.x);
}

void run(const DynamicQuantization& q) {
  const int64_t columns = q.x.sizes.back(0), rows = rows_of(q.x), bytes = element_bits(q.x.dtype) / 8;
  if (rows == 0) return;
  const DenseInput x(q.x);
  const DenseOutput y(q.y), scales(q.scale), offsets(q.offset);
  const std::vector<float> smooth = float_values(q.smooth);
  const std::vector<int64_t> ends = int_values(q.groups);
  std::vector<float> row(columns);
  for (int64_t r = 0; r < rows; ++r) {
    to_float(x.data_as<char>() + r * columns * bytes, q.x.dtype, row.data(), columns);
    const int64_t group = std::upper_bound(ends.begin(), ends.end(), r) - ends.begin();
    if (!smooth.empty() && (ends.empty() || group < static_cast<int64_t>(ends.size()))) {
      for (int64_t c = 0; c < columns; ++c) row[c] *= smooth[group * columns + c];
    }
    const auto [low, high] = std::minmax_element(row.begin(), row.end());
    float scale, offset = 0.0f;
    if (q.offset.defined()) {
      scale = (*high - *low) / 255.0f;
      offset = scale == 0.0f ? 0.0f : 127.0f - *high / scale;
      offsets.data_as<float>()[r] = offset;
    } else {
      scale = std::max(std::abs(*low), std::abs(*high)) / 127.0f;
    }
    scales.data_as<float>()[r] = scale;
    const float divisor = scale == 0.0f ? 1.0f : scale;  // a row of zeros stays one
    for (float& value : row) value = value / divisor + offset;
    from_float(row.data(), y.data_as<int8_t>() + r * columns, ACL_INT8, columns);
  }
}

// Three vector operations an element: the extremes, the division, the conversion.
Work work_of(const TensorView& x, const TensorView& y) {
  return {.vector_flops = 3.0 * static_cast<double>(x.numel()),
          .read_bytes = static_cast<double>(size_in_bytes(x.sizes, x.dtype)),
          .written_bytes = static_cast<double>(size_in_bytes(y.sizes, y.dtype))};
}

DynamicQuantization quantization_of(const DynamicQuantV2Args& a) {
  return {a.x, a.smoothScalesOptional, a.yOut, a.scaleOut, a.offsetOut, a.groupIndexOptional};
}

// ---- TransQuantParam: float32 scales and offsets in the chip's 64-bit form ----

void check_parameters(const TensorView& scale, const TensorView& offset, const TensorView& out) {
  require_dtype(scale, "scale", {ACL_FLOAT});
  require_rank(scale, "scale", 1, 2);
  require_dtype(out, "out", {ACL_INT64, ACL_UINT64});
  if (!offset.defined()) return require_sizes(out, "out", scale.sizes);
  require_dtype(offset, "offset", {ACL_FLOAT});
  require_rank(offset, "offset", 1, 2);
  require(out.numel() == std::max(scale.numel(), offset.numel()), "out has %lld elements, but scale has %lld and offset %lld.",
          static_cast<long long>(out.numel()), static_cast<long long>(scale.numel()), static_cast<long long>(offset.numel()));
}

uint64_t parameter_of(float scale, bool round_scale) {
  uint32_t bits;
  std::memcpy(&bits, &scale, sizeof bits);
  if (round_scale) bits += 0x1000u;  // half of the lowest bit that is kept
  return (bits & 0xffffe000u) | (uint64_t{1} << 46);
}

void run_parameters(const TensorView& scale, const TensorView& offset, bool round_scale, const TensorView& out) {
  const int64_t count = out.numel();
  const std::vector<float> scales = column_values(scale, count);
  const DenseOutput parameters(out);
  for (int64_t i = 0; i < count; ++i) parameters.data_as<uint64_t>()[i] = parameter_of(scales[i], round_scale);
  if (!offset.defined()) return;
  const std::vector<float> offsets = column_values(offset, count);
  for (int64_t i = 0; i < count; ++i) {
    const auto value = static_cast<int64_t>(std::clamp(std::nearbyintf(offsets[i]), -256.0f, 255.0f));
    uint64_t& parameter = parameters.data_as<uint64_t>()[i];
    parameter = (parameter & 0x4000ffffffffull) | ((static_cast<uint64_t>(value) & 0x1ff) << 37);
  }
}

}  // namespace

ACLNN_CHECK(AscendQuantV3) { check_ascend_quant(a); }
ACLNN_KERNEL(AscendQuantV3) { run_ascend_quant(a); }

ACLNN_CHECK(DynamicQuant) { check_dynamic({a.x, a.smoothScalesOptional, a.yOut, a.scaleOut, {}, {}}, a.yOut.dtype); }
ACLNN_KERNEL(DynamicQuant) { run({a.x, a.smoothScalesOptional, a.yOut, a.scaleOut, {}, {}}); }
ACLNN_WORK(DynamicQuant) { return work_of(a.x, a.yOut); }

ACLNN_CHECK(DynamicQuantV2) {
  require(!a.groupIndexOptional.defined() || a.smoothScalesOptional.defined(), "groupIndex needs smoothScales.");
  check_dynamic(quantization_of(a), a.dstType);
}
ACLNN_KERNEL(DynamicQuantV2) { run(quantization_of(a)); }
ACLNN_WORK(DynamicQuantV2) { return work_of(a.x, a.yOut); }

ACLNN_CHECK(TransQuantParamV2) { check_parameters(a.scale, a.offset, a.out); }
ACLNN_KERNEL(TransQuantParamV2) { run_parameters(a.scale, a.offset, false, a.out); }

ACLNN_CHECK(TransQuantParamV3) {
  require(a.roundMode == 0 || a.roundMode == 1, "roundMode is %lld, but must be 0 or 1.", static_cast<long long>(a.roundMode));
  check_parameters(a.scale, a.offset, a.out);
}
ACLNN_KERNEL(TransQuantParamV3) { run_parameters(a.scale, a.offset, a.roundMode == 1, a.out); }

}  // namespace emulator::aclnn
