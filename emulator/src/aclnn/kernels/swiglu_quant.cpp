// SwiGLU between dequantization and quantization, with the rows of each expert together where groups are given.
// Semantics: hicann/ops-nn, quant/{dequant_swiglu_quant,swi_glu_quant}/docs. Implemented: int8 results, the last dimension.
#include <algorithm>
#include <cmath>
#include <string_view>
#include <vector>

#include "aclnn/kernels/float_values.h"
#include "aclnn/kernels/quantize_row.h"
#include "aclnn_arguments.h"
#include "math/convert.h"

namespace emulator::aclnn {

namespace {

// The four variants of swigluMode: SiLU of a half; GPT-OSS's with even and odd, or halves; Step's clamped SiLU.
enum GluMode : int64_t { kPlain = 0, kInterleavedOss = 1, kHalvesOss = 2, kClampedSilu = 3 };

struct SwigluQuant {
  const TensorView &x, &weight_scale, &row_scale, &bias, &quant_scale, &quant_offset, &groups;
  bool groups_are_ends;  // groups are running totals, not counts
  bool activates_left;
  bool dynamic;
  int64_t mode;
  float limit, alpha, glu_bias;
  const TensorView &y, &scale;
  bool multiplies = false;  // a row's scale is what multiplied it, instead of what undoes that

  int64_t half() const { return x.sizes.back(0) / 2; }
  int64_t rows() const { return half() == 0 ? 0 : x.numel() / (2 * half()); }
};

bool given(const TensorView& tensor) { return tensor.defined() && tensor.numel() > 0; }
int64_t group_count(const SwigluQuant& q) { return given(q.groups) ? q.groups.sizes[0] : 1; }

void check_by_group(const TensorView& tensor, const char* name, int64_t groups, int64_t width) {
  if (!given(tensor)) return;
  const int64_t count = tensor.numel();
  require(count == groups * width || count == groups, "%s has sizes %s, but must have [%lld, %lld] or [%lld].", name,
          to_string(tensor.sizes).c_str(), static_cast<long long>(groups), static_cast<long long>(width),
          static_cast<long long>(groups));
}

void check(const SwigluQuant& q, int64_t dst_type) {
  require_rank(q.x, "x", 2, 8);
  require(q.x.sizes.back(0) % 2 == 0, "the last dimension of x is %lld, but must be even.",
          static_cast<long long>(q.x.sizes.back(0)));
  if (dst_type != ACL_INT8) fail(kRuntimeError, "the emulator implements dstType 2 (INT8) only, not %lld.", static_cast<long long>(dst_type));
  require_dtype(q.y, "yOut", {ACL_INT8});
  Dims halved = q.x.sizes;
  halved[halved.rank() - 1] /= 2;
  require_sizes(q.y, "yOut", halved);
  const int64_t groups = group_count(q);
  if (q.x.dtype == ACL_INT32) {
    require(given(q.weight_scale), "weightScale must not be null with an x of int32.");
    require_dtype(q.weight_scale, "weightScale", {ACL_FLOAT});
    require(q.weight_scale.numel() == groups * 2 * q.half(), "weightScale has sizes %s, but must have [%lld, %lld].",
            to_string(q.weight_scale.sizes).c_str(), static_cast<long long>(groups), static_cast<long long>(2 * q.half()));
  }
  if (given(q.row_scale)) {
    require_dtype(q.row_scale, "activationScale", {ACL_FLOAT});
    require(q.row_scale.numel() == q.rows(), "activationScale has %lld elements, but x has %lld rows.",
            static_cast<long long>(q.row_scale.numel()), static_cast<long long>(q.rows()));
  }
  if (given(q.bias)) {
    require(q.bias.numel() == groups * 2 * q.half(), "bias has sizes %s, but must have [%lld, %lld].",
            to_string(q.bias.sizes).c_str(), static_cast<long long>(groups), static_cast<long long>(2 * q.half()));
  }
  check_by_group(q.quant_scale, "quantScale", groups, q.half());
  if (q.dynamic) {
    require_dtype(q.scale, "scaleOut", {ACL_FLOAT});
    require(q.scale.numel() == q.rows(), "scaleOut has %lld elements, but x has %lld rows.",
            static_cast<long long>(q.scale.numel()), static_cast<long long>(q.rows()));
  } else {
    require(given(q.quant_scale), "quantScale must not be null in mode \"static\".");
    check_by_group(q.quant_offset, "quantOffset", groups, q.half());
  }
}

float sigmoid(float value) { return 1.0f / (1.0f + std::exp(-value)); }

// One row of 2 * half values to half.
void activate(const SwigluQuant& q, const float* row, float* out) {
  const int64_t half = q.half();
  for (int64_t i = 0; i < half; ++i) {
    const float left = q.mode == kInterleavedOss ? row[2 * i] : row[i], right = q.mode == kInterleavedOss ? row[2 * i + 1] : row[half + i];
    float gate = q.activates_left ? left : right, up = q.activates_left ? right : left;
    if (q.mode == kInterleavedOss || q.mode == kHalvesOss) {
      gate = std::min(gate, q.limit);
      up = std::clamp(up, -q.limit, q.limit) + q.glu_bias;
      out[i] = gate * sigmoid(q.alpha * gate) * up;
      continue;
    }
    gate *= sigmoid(gate);
    if (q.mode == kClampedSilu) {
      gate = std::min(gate, q.limit);
      up = std::clamp(up, -q.limit, q.limit);
    }
    out[i] = gate * up;
  }
}

struct Values {
  explicit Values(const SwigluQuant& q)
      : x(float_values(q.x)), weight_scale(float_values(q.weight_scale)), row_scale(float_values(q.row_scale)),
        bias(float_values(q.bias)), quant_scale(float_values(q.quant_scale)), quant_offset(float_values(q.quant_offset)) {}
  std::vector<float> x, weight_scale, row_scale, bias, quant_scale, quant_offset;
};

// A parameter of [groups, width] or [groups] at a column of a group.
float by_group(const std::vector<float>& values, int64_t groups, int64_t group, int64_t column) {
  const auto width = static_cast<int64_t>(values.size()) / groups;
  return values[group * width + (width == 1 ? 0 : column)];
}

// x * weightScale * activationScale + bias; an integer bias belongs to the sums, before the scales.
void dequantize(const SwigluQuant& q, Values& v, int64_t group, int64_t row) {
  const int64_t width = 2 * q.half();
  float* values = &v.x[row * width];
  const bool bias_first = q.bias.dtype == ACL_INT32;
  for (int64_t i = 0; i < width; ++i) {
    const float bias = v.bias.empty() ? 0.0f : v.bias[group * width + i];
    if (bias_first) values[i] += bias;
    if (!v.weight_scale.empty() && q.x.dtype == ACL_INT32) values[i] *= v.weight_scale[group * width + i];
    if (!v.row_scale.empty()) values[i] *= v.row_scale[row];
    if (!bias_first) values[i] += bias;
  }
}

void run_row(const SwigluQuant& q, Values& v, int64_t group, int64_t row) {
  const int64_t half = q.half(), groups = group_count(q);
  dequantize(q, v, group, row);
  std::vector<float> activated(half);
  activate(q, &v.x[row * 2 * half], activated.data());
  int8_t* y = q.y.data_as<int8_t>() + row * half;
  for (int64_t i = 0; i < half && !v.quant_scale.empty(); ++i) {
    const float factor = by_group(v.quant_scale, groups, group, i);
    activated[i] = q.dynamic ? activated[i] * factor : activated[i] * factor + (v.quant_offset.empty() ? 0.0f : by_group(v.quant_offset, groups, group, i));
  }
  if (q.dynamic && q.multiplies) {
    float largest = 0.0f;
    for (const float value : activated) largest = std::max(largest, std::abs(value));
    const float factor = 127.0f / largest;
    for (float& value : activated) value = largest == 0.0f ? 0.0f : value * factor;
    q.scale.data_as<float>()[row] = factor;
    from_float(activated.data(), y, ACL_INT8, half);
  } else if (q.dynamic) {
    q.scale.data_as<float>()[row] = quantize_row(activated.data(), nullptr, half, y);
  } else {
    from_float(activated.data(), y, ACL_INT8, half);
  }
}

void run(const SwigluQuant& q) {
  if (q.rows() == 0) return;
  Values values(q);
  std::vector<int64_t> counts = given(q.groups) ? int_values(q.groups) : std::vector<int64_t>{q.rows()};
  int64_t row = 0;
  for (size_t group = 0; group < counts.size(); ++group) {
    const int64_t end = q.groups_are_ends && given(q.groups) ? counts[group] : row + counts[group];
    if (end > q.rows()) fail(kAicoreException, "groupIndex asks for %lld rows, but x has %lld.", static_cast<long long>(end), static_cast<long long>(q.rows()));
    for (; row < end; ++row) run_row(q, values, static_cast<int64_t>(group), row);
  }
}

Work work_of(const SwigluQuant& q) {
  return {.vector_flops = 12.0 * static_cast<double>(q.y.numel()),
          .read_bytes = static_cast<double>(size_in_bytes(q.x.sizes, q.x.dtype)),
          .written_bytes = static_cast<double>(q.y.numel())};
}

bool is_dynamic(const std::string& mode) {
  require(mode == "dynamic" || mode == "static" || mode.empty(), "quantMode is \"%s\", but must be \"dynamic\" or \"static\".", mode.c_str());
  return mode == "dynamic";
}

SwigluQuant quant_of(const DequantSwigluQuantArgs& a) {
  return {a.x, a.weightScaleOptional, a.activationScaleOptional, a.biasOptional, a.quantScaleOptional, a.quantOffsetOptional,
          a.groupIndexOptional, false, a.activateLeft, is_dynamic(a.quantModeOptional), kPlain, 0, 0, 0, a.yOut, a.scaleOut};
}
SwigluQuant quant_of(const DequantSwigluQuantV2Args& a) {
  return {a.x, a.weightScaleOptional, a.activationScaleOptional, a.biasOptional, a.quantScaleOptional, a.quantOffsetOptional,
          a.groupIndexOptional, false, a.activateLeft, is_dynamic(a.quantModeOptional), a.swigluMode,
          static_cast<float>(a.clampLimit), static_cast<float>(a.gluAlpha), static_cast<float>(a.gluBias), a.yOut, a.scaleOut};
}
const TensorView kAbsent;
SwigluQuant quant_of(const SwiGluQuantV2Args& a) {
  return {a.x, kAbsent, kAbsent, kAbsent, a.smoothScalesOptional, a.offsetsOptional, a.groupIndexOptional, a.groupListType == 0,
          a.activateLeft, is_dynamic(a.quantModeOptional), kPlain, 0, 0, 0, a.yOut, a.scaleOut, true};
}

void check_dequantized(const SwigluQuant& q, int64_t dst_type) {
  require_dtype(q.x, "x", {ACL_FLOAT16, ACL_BF16, ACL_INT32});
  require(!given(q.groups) || q.groups.rank() == 1, "the emulator implements a groupIndex of one dimension only.");
  check(q, dst_type);
}

}  // namespace

ACLNN_CHECK(DequantSwigluQuant) { check_dequantized(quant_of(a), ACL_INT8); }
ACLNN_KERNEL(DequantSwigluQuant) { run(quant_of(a)); }
ACLNN_WORK(DequantSwigluQuant) { return work_of(quant_of(a)); }

ACLNN_CHECK(DequantSwigluQuantV2) {
  const int64_t dim = require_dim(a.activateDim, a.x, "activateDim");
  if (dim != a.x.rank() - 1) fail(kRuntimeError, "the emulator implements the last dimension as activateDim only.");
  require(a.swigluMode >= kPlain && a.swigluMode <= kClampedSilu, "swigluMode is %lld, but must be 0 to 3.", static_cast<long long>(a.swigluMode));
  require(a.swigluMode != kInterleavedOss || a.activateLeft, "activateLeft must be true with swigluMode 1.");
  check_dequantized(quant_of(a), a.dstType);
}
ACLNN_KERNEL(DequantSwigluQuantV2) { run(quant_of(a)); }
ACLNN_WORK(DequantSwigluQuantV2) { return work_of(quant_of(a)); }

ACLNN_CHECK(SwiGluQuantV2) {
  require_dtype(a.x, "x", {ACL_FLOAT16, ACL_BF16, ACL_FLOAT});
  require(a.groupListType == 0 || a.groupListType == 1, "groupListType is %lld, but must be 0 or 1.", static_cast<long long>(a.groupListType));
  require(a.x.sizes.back(0) <= 8192, "the last dimension of x is %lld, but must be at most 8192.", static_cast<long long>(a.x.sizes.back(0)));
  check(quant_of(a), a.dstType);
}
ACLNN_KERNEL(SwiGluQuantV2) { run(quant_of(a)); }
ACLNN_WORK(SwiGluQuantV2) { return work_of(quant_of(a)); }

}  // namespace emulator::aclnn
