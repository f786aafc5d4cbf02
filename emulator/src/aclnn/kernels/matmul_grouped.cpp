// Grouped matrix products: ranges of x's rows, each with its own weight (aclnnGroupedMatmulV4, V5, WeightNz).
// Semantics: hicann/ops-transformer, gmm/grouped_matmul/docs; the rules for Ascend 310P are in op_api's checks only.
//
// Implemented: one x, one weight [groups, K, N] (row-major, transposed or FRACTAL_NZ), one output, rows split, no
// activation; float16 and its kin; int8 with a scale for each row and each column; float16 or bfloat16 with row-major
// weights of int8 or of int4 packed eight to an int32. Anything else is refused as not implemented. For int8 on Ascend
// 310P see matmul_grouped_dequant.cpp.
#include <algorithm>
#include <optional>
#include <vector>

#include "aclnn/kernels/contiguous.h"
#include "aclnn/kernels/float_values.h"
#include "aclnn/kernels/quant_parameters.h"
#include "aclnn/kernels/weight_only.h"
#include "aclnn/operator.h"
#include "aclnn_arguments.h"
#include "math/convert.h"
#include "math/gemm.h"

namespace emulator::aclnn {

namespace {

enum GroupListType : int64_t { kRunningTotals = 0, kCounts = 1 };
constexpr int64_t kSplitRows = 0;

struct GroupedProduct {
  const TensorView& x;
  const TensorView& weight;
  const TensorView* bias;  // [groups, N] or null
  const TensorView& group_list;
  const TensorView& out;
  int64_t group_list_type;
  const TensorView* scale;      // [groups, N], of int8 weights, or null
  const TensorView* row_scale;  // [M], of int8 rows, or null
  const TensorView* antiquant_scale;   // [groups, N] or [groups, parts of K, N], of few-bit weights, or null
  const TensorView* antiquant_offset;  // likewise

  int64_t groups() const { return weight.sizes[0]; }
  int64_t columns() const { return weight.sizes[2] * (weight.dtype == ACL_INT32 ? kPackedInt4 : 1); }
  bool quantized() const { return scale != nullptr; }
  bool weight_only() const { return antiquant_scale != nullptr; }
};

bool given(const TensorList& list) { return list.present && !list.empty() && list[0].defined() && list[0].numel() > 0; }

template <typename Args>
GroupedProduct product_of(const Args& a) {
  const bool has_bias = given(a.biasOptional);
  return {a.x[0],
          a.weight[0],
          has_bias ? &a.biasOptional[0] : nullptr,
          a.groupListOptional,
          a.out[0],
          a.groupListType,
          given(a.scaleOptional) ? &a.scaleOptional[0] : nullptr,
          given(a.perTokenScaleOptional) ? &a.perTokenScaleOptional[0] : nullptr,
          given(a.antiquantScaleOptional) ? &a.antiquantScaleOptional[0] : nullptr,
          given(a.antiquantOffsetOptional) ? &a.antiquantOffsetOptional[0] : nullptr};
}

template <typename Args>
void check_form(const Args& a) {
  const bool quantized = given(a.scaleOptional) || given(a.perTokenScaleOptional);
  const bool weight_only = given(a.antiquantScaleOptional) || given(a.antiquantOffsetOptional);
  require(!(quantized || weight_only) || chip().product != kAtlasInference, "GMM: quant cases do not support on %s.", chip().soc_version);
  if (given(a.offsetOptional) || (quantized && weight_only) ||
      (quantized && !(given(a.scaleOptional) && given(a.perTokenScaleOptional)))) {
    fail(kRuntimeError, "GroupedMatmul: the emulator implements quantized products with scale and perTokenScale only.");
  }
  if (weight_only && !(given(a.antiquantScaleOptional) && given(a.antiquantOffsetOptional))) {
    fail(kRuntimeError, "GroupedMatmul: the emulator implements antiquantScale and antiquantOffset together only.");
  }
  if (a.actType != 0) {
    require(chip().product != kAtlasInference, "Activation is not supported on %s.", chip().soc_version);
    fail(kRuntimeError, "GroupedMatmul: the emulator does not implement actType %lld yet.", static_cast<long long>(a.actType));
  }
  const bool single = a.x.size() == 1 && a.weight.size() == 1 && a.out.size() == 1;
  if (chip().product == kAtlasInference) {
    require(single && a.groupType == kSplitRows, "x, weight and out must be single tensors and groupType 0 on %s.",
            chip().soc_version);
  }
  if (!single || a.groupType != kSplitRows || !a.groupListOptional.defined()) {
    fail(kRuntimeError, "GroupedMatmul: the emulator implements single tensors with groupType 0 and a groupList only.");
  }
}

void check_quantized(const GroupedProduct& p) {
  require_dtype(p.x, "x", {ACL_INT8});
  require_dtype(p.weight, "weight", {ACL_INT8});
  require_dtype(p.out, "out", {ACL_FLOAT16, ACL_BF16});
  require_dtype(*p.scale, "scale", {p.out.dtype == ACL_BF16 ? ACL_BF16 : ACL_FLOAT});
  require_sizes(*p.scale, "scale", {p.groups(), p.weight.sizes[2]});
  require_dtype(*p.row_scale, "perTokenScale", {ACL_FLOAT});
  require_sizes(*p.row_scale, "perTokenScale", {p.x.sizes[0]});
  if (p.bias != nullptr) fail(kRuntimeError, "GroupedMatmul: the emulator does not implement a bias of quantized products.");
}

// The document: int8 weights with a scale for each column; int4 with one for each column, or for each part of K too.
void check_weight_only(const GroupedProduct& p) {
  require_dtype(p.x, "x", {ACL_FLOAT16, ACL_BF16});
  require_same_dtype(p.x, "x", p.out, "out");
  require_same_dtype(*p.antiquant_scale, "antiquantScale", p.x, "x");
  require_same_dtype(*p.antiquant_offset, "antiquantOffset", p.x, "x");
  require_sizes(*p.antiquant_offset, "antiquantOffset", p.antiquant_scale->sizes);
  if ((p.weight.dtype != ACL_INT8 && p.weight.dtype != ACL_INT32) || p.weight.is_fractal_nz() || p.weight.strides[2] != 1) {
    fail(kRuntimeError, "GroupedMatmul: the emulator implements row-major weights of int8 and of int4 in int32 only.");
  }
  if (p.bias != nullptr) fail(kRuntimeError, "GroupedMatmul: the emulator does not implement a bias of few-bit weights.");
  if (p.antiquant_scale->rank() == 2) return require_sizes(*p.antiquant_scale, "antiquantScale", {p.groups(), p.columns()});
  require_rank(*p.antiquant_scale, "antiquantScale", 3, 3);
  require(p.weight.dtype == ACL_INT32, "antiquantScale must have sizes [groups, n] where weight is int8.");
  const int64_t parts = p.antiquant_scale->sizes[1];
  require_sizes(*p.antiquant_scale, "antiquantScale", {p.groups(), parts, p.columns()});
  require(parts > 0 && p.x.sizes[1] % parts == 0, "antiquantScale has %lld parts, which do not divide %lld rows of weight.",
          static_cast<long long>(parts), static_cast<long long>(p.x.sizes[1]));
}

void check_types(const GroupedProduct& p) {
  require_dtype(p.group_list, "groupList", {ACL_INT64});
  if (p.quantized()) return check_quantized(p);
  if (p.weight_only()) return check_weight_only(p);
  require_same_dtype(p.x, "x", p.weight, "weight");
  require_same_dtype(p.x, "x", p.out, "out");
  if (p.bias != nullptr) {
    require_dtype(*p.bias, "bias", {p.x.dtype == ACL_BF16 ? ACL_FLOAT : p.x.dtype});
    require_sizes(*p.bias, "bias", {p.groups(), p.columns()});
    require(p.bias->is_contiguous(), "bias must be contiguous.");
  }
  if (chip().product == kAtlasInference) {
    require_dtype(p.x, "x", {ACL_FLOAT16});
    require(p.weight.is_fractal_nz(), "weight has format %s, but must be FRACTAL_NZ on %s.", format_name(p.weight.format),
            chip().soc_version);
  } else {
    require_dtype(p.x, "x", {ACL_FLOAT16, ACL_BF16, ACL_FLOAT});
  }
}

void check_grouped(const GroupedProduct& p) {
  require_rank(p.x, "x", 2, 2);
  require_rank(p.weight, "weight", 3, 3);
  check_types(p);
  require(p.group_list_type == kRunningTotals || p.group_list_type == kCounts,
          "groupListType is %lld, but the emulator implements 0 (cumsum) and 1 (count).",
          static_cast<long long>(p.group_list_type));
  require_sizes(p.group_list, "groupList", {p.groups()});
  require(p.groups() <= 1024, "groupList has %lld groups, but at most 1024 are supported.",
          static_cast<long long>(p.groups()));
  require(p.x.sizes[1] == p.weight.sizes[1], "x has %lld columns and each weight %lld rows, but they must be equal.",
          static_cast<long long>(p.x.sizes[1]), static_cast<long long>(p.weight.sizes[1]));
  require_sizes(p.out, "out", {p.x.sizes[0], p.columns()});
  require(p.x.strides.back(0) == 1 && p.out.is_contiguous(), "x must have contiguous rows and out must be contiguous.");
  if (p.weight.is_fractal_nz()) {
    bool transposed = false;
    fractal_matrix(p.weight, &transposed);
  } else {
    require(p.weight.strides[2] == 1 || p.weight.strides[1] == 1, "each weight must be row-major or the transpose of that.");
  }
}

GemmOperand weight_of_group(const TensorView& weight, int64_t group) {
  if (weight.is_fractal_nz()) {
    bool transposed = false;
    const FractalMatrix matrix = fractal_matrix(weight, &transposed);
    return fractal(matrix, weight.dtype, transposed, group);
  }
  const auto* data = static_cast<const char*>(weight.data()) + group * weight.strides[0] * element_bits(weight.dtype) / 8;
  return weight.strides[2] == 1 ? row_major(data, weight.dtype, weight.strides[1])
                                : row_major_transposed(data, weight.dtype, weight.strides[2]);
}

Int8Operand int8_weight_of_group(const TensorView& weight, int64_t group) {
  if (weight.is_fractal_nz()) {
    bool transposed = false;
    const FractalMatrix matrix = fractal_matrix(weight, &transposed);
    return int8_fractal(matrix, transposed, group);
  }
  const auto* data = weight.data_as<int8_t>() + group * weight.strides[0];
  return weight.strides[2] == 1 ? int8_row_major(data, weight.strides[1]) : int8_row_major_transposed(data, weight.strides[2]);
}

void run_int8_group(const GroupedProduct& p, const std::vector<float>& scale, int64_t group, int64_t begin, int64_t end) {
  const int64_t n = p.out.sizes[1], bytes = element_bits(p.out.dtype) / 8;
  std::vector<int32_t> sums((end - begin) * n);
  gemm_int8({end - begin, n, p.x.sizes[1], p.x.data_as<int8_t>() + begin * p.x.strides[0], p.x.strides[0],
             int8_weight_of_group(p.weight, group), sums.data(), n});
  const Dequantization dequantization{{scale.begin() + group * n, scale.begin() + (group + 1) * n}, nullptr, {}};
  for (int64_t row = begin; row < end; ++row) {
    const float row_scale = p.row_scale->data_as<float>()[row * p.row_scale->strides[0]];
    dequantization.apply(sums.data() + (row - begin) * n, n, row_scale, p.out.data_as<char>() + row * n * bytes, p.out.dtype);
  }
}

std::vector<float> floats(const TensorView& tensor) {
  const DenseInput input(tensor);
  std::vector<float> values(tensor.numel());
  to_float(input.data(), tensor.dtype, values.data(), tensor.numel());
  return values;
}

// The weights of each group as numbers of x's type, while the group is multiplied.
class FewBitWeights {
 public:
  explicit FewBitWeights(const GroupedProduct& p)
      : p_(p), weight_(p.weight), scale_(floats(*p.antiquant_scale)), offset_(floats(*p.antiquant_offset)) {}

  GemmOperand of_group(int64_t group) {
    const int64_t k = p_.x.sizes[1], n = p_.columns();
    const int64_t scales = static_cast<int64_t>(scale_.size()) / p_.groups(), parts = scales / n;
    const int64_t bytes = k * p_.weight.sizes[2] * element_bits(p_.weight.dtype) / 8;
    matrix_ = dequantized({weight_.data_as<char>() + group * bytes, p_.weight.dtype, n}, k, scale_.data() + group * scales,
                          offset_.data() + group * scales, false, k / parts, p_.x.dtype);
    return row_major(matrix_.data(), p_.x.dtype, n);
  }

 private:
  const GroupedProduct& p_;
  const DenseInput weight_;
  const std::vector<float> scale_, offset_;
  std::vector<uint16_t> matrix_;
};

// Rows behind the last group keep what the output's memory held, as on hardware.
void run(const GroupedProduct& p) {
  const int64_t item_bytes = element_bits(p.x.dtype) / 8, n = p.out.sizes[1];
  const std::vector<int64_t> lengths = int_values(p.group_list);
  const std::vector<float> scale = p.quantized() ? column_values(*p.scale, p.scale->numel()) : std::vector<float>();
  std::optional<FewBitWeights> few_bit;
  if (p.weight_only()) few_bit.emplace(p);
  int64_t begin = 0;
  for (int64_t group = 0; group < p.groups(); ++group) {
    const int64_t end = p.group_list_type == kCounts ? begin + lengths[group] : lengths[group];
    if (end < begin || end > p.x.sizes[0]) {
      fail(kAicoreException, "GroupedMatmul: groupList ends group %lld at row %lld, but x has %lld rows.",
           static_cast<long long>(group), static_cast<long long>(end), static_cast<long long>(p.x.sizes[0]));
    }
    if (p.quantized()) {
      if (end > begin) run_int8_group(p, scale, group, begin, end);
      begin = end;
      continue;
    }
    if (end == begin) continue;
    Gemm g;
    g.m = end - begin;
    g.n = n;
    g.k = p.x.sizes[1];
    g.a = static_cast<const char*>(p.x.data()) + begin * p.x.strides[0] * item_bytes;
    g.a_dtype = p.x.dtype;
    g.a_row_stride = p.x.strides[0];
    g.b = few_bit ? few_bit->of_group(group) : weight_of_group(p.weight, group);
    g.c = static_cast<char*>(p.out.data()) + begin * n * item_bytes;
    g.c_dtype = p.out.dtype;
    g.c_row_stride = n;
    if (p.bias != nullptr) {
      g.bias = static_cast<const char*>(p.bias->data()) + group * n * element_bits(p.bias->dtype) / 8;
      g.bias_dtype = p.bias->dtype;
    }
    gemm(g);
    begin = end;
  }
}

// An upper bound of the traffic: every group's weight is read if every group has rows.
Work work_of(const GroupedProduct& p) {
  const double rows = static_cast<double>(p.x.sizes[0]);
  Work work;
  work.int8_cube = p.quantized();
  work.cube_flops = 2.0 * rows * static_cast<double>(p.x.sizes[1]) * static_cast<double>(p.out.sizes[1]);
  const double used = std::min(1.0, rows / static_cast<double>(p.groups()));
  if (p.weight_only()) work.vector_flops = 3.0 * used * static_cast<double>(p.weight.sizes[0] * p.x.sizes[1] * p.columns());
  work.read_bytes = static_cast<double>(size_in_bytes(p.x.sizes, p.x.dtype)) +
                    used * static_cast<double>(size_in_bytes(p.weight.sizes, p.weight.dtype));
  work.written_bytes = static_cast<double>(size_in_bytes(p.out.sizes, p.out.dtype));
  return work;
}

}  // namespace

#define GROUPED_MATMUL(op)                  \
  ACLNN_CHECK(op) {                         \
    check_form(a);                          \
    check_grouped(product_of(a));           \
  }                                         \
  ACLNN_KERNEL(op) { run(product_of(a)); }  \
  ACLNN_WORK(op) { return work_of(product_of(a)); }

GROUPED_MATMUL(GroupedMatmulV4)
GROUPED_MATMUL(GroupedMatmulV5)
GROUPED_MATMUL(GroupedMatmulWeightNz)

#undef GROUPED_MATMUL

}  // namespace emulator::aclnn
