// int8 matrix products with dequantization: aclnnQuantMatmulV5 (any weight) and WeightNz (FRACTAL_NZ weights).
// Semantics and combinations of types by product: hicann/ops-nn, matmul/quant_batch_matmul_v{3,4}/docs.
//
// Implemented: int8 x int8, one weight for all batches of x1, a scale for the tensor or for each column, with or without
// one for each row. int4, fp8, scales of blocks and groups are refused as not implemented.
#include <algorithm>
#include <array>
#include <span>
#include <vector>

#include "aclnn/kernels/contiguous.h"
#include "aclnn/kernels/matmul_product.h"
#include "aclnn/kernels/quant_parameters.h"
#include "aclnn_arguments.h"
#include "core/cost.h"
#include "math/gemm.h"

namespace emulator::aclnn {

namespace {

constexpr int64_t kInnerLimit = 65535;  // last dimensions of x1 and x2, documents' limit

struct QuantProduct {
  TensorView x1, x2;  // [.., m, k], [k, n]
  const TensorView& row_scale;     // x1Scale [m], may be undefined
  const TensorView& column_scale;  // x2Scale [1] or [n]
  const TensorView& offset;        // x2Offset, may be undefined
  const TensorView& bias;          // may be undefined
  const TensorView& out;

  int64_t k() const { return x2.sizes[0]; }
  int64_t n() const { return x2.sizes[1]; }
  int64_t rows() const { return x1.numel() / k(); }
};

// torch_npu gives an empty tensor for an optional argument that has no value.
bool given(const TensorView& tensor) { return tensor.defined() && tensor.numel() > 0; }

void transpose(TensorView& view) {
  const int last = view.rank() - 1;
  std::swap(view.sizes[last], view.sizes[last - 1]);
  std::swap(view.strides[last], view.strides[last - 1]);
}

template <typename Args>
QuantProduct product_of(const Args& a) {
  QuantProduct p{a.x1, a.x2, a.x1Scale, a.x2Scale, a.x2Offset, a.bias, a.out};
  if (a.transposeX1) transpose(p.x1);
  if (a.transposeX2) transpose(p.x2);
  return p;
}

// One row of the documents' tables of types; bit i of a mask is the type of kTypes[i].
enum TypeMask : uint32_t { kNone = 1, kInt32 = 2, kFp16 = 4, kBf16 = 8, kFp32 = 16, kParameter = 32 };

struct Combination {
  uint32_t row_scale, column_scale, offset, bias;
  aclDataType out;
};

uint32_t mask_of(const TensorView& tensor) {
  if (!given(tensor)) return kNone;
  switch (tensor.dtype) {
    case ACL_INT32: return kInt32;
    case ACL_FLOAT16: return kFp16;
    case ACL_BF16: return kBf16;
    case ACL_FLOAT: return kFp32;
    case ACL_INT64:
    case ACL_UINT64: return kParameter;
    default: return 0;
  }
}

constexpr std::array kCombinations310p{
    Combination{kNone, kParameter, kNone, kNone | kInt32, ACL_FLOAT16},
    Combination{kNone, kParameter, kNone | kFp32, kNone | kInt32, ACL_INT8},
    Combination{kFp32, kFp32, kNone, kNone | kInt32, ACL_FLOAT16},
};
constexpr std::array kCombinations{
    Combination{kNone, kParameter, kNone, kNone | kInt32, ACL_FLOAT16},
    Combination{kNone, kParameter, kNone | kFp32, kNone | kInt32, ACL_INT8},
    Combination{kNone | kFp32, kFp32 | kBf16, kNone, kNone | kInt32 | kBf16 | kFp32, ACL_BF16},
    Combination{kFp32, kFp32, kNone, kNone | kInt32 | kFp16 | kFp32, ACL_FLOAT16},
    Combination{kNone, kFp32 | kBf16, kNone, kNone | kInt32, ACL_INT32},
    Combination{kNone, kParameter, kNone, kNone | kInt32, ACL_BF16},  // Ascend 950 only: keep last
};

std::span<const Combination> combinations() {
  if (chip().product == kAtlasInference) return kCombinations310p;
  return std::span(kCombinations).first(kCombinations.size() - (chip().product == kA5 ? 0 : 1));
}

const char* type_of(const TensorView& tensor) { return given(tensor) ? dtype_name(tensor.dtype) : "null"; }

void check_types(const QuantProduct& p) {
  if (p.x1.dtype != ACL_INT8 || p.x2.dtype != ACL_INT8) {
    fail(kRuntimeError, "the emulator implements int8 x int8 only, not %s x %s.", dtype_name(p.x1.dtype), dtype_name(p.x2.dtype));
  }
  const bool known = std::ranges::any_of(combinations(), [&](const Combination& c) {
    return (mask_of(p.row_scale) & c.row_scale) && (mask_of(p.column_scale) & c.column_scale) &&
           (mask_of(p.offset) & c.offset) && (mask_of(p.bias) & c.bias) && p.out.dtype == c.out;
  });
  require(known, "x1Scale %s, x2Scale %s, x2Offset %s, bias %s and out %s is not a supported combination of types on %s.",
          type_of(p.row_scale), type_of(p.column_scale), type_of(p.offset), type_of(p.bias), dtype_name(p.out.dtype),
          chip().soc_version);
}

void check_weight(const QuantProduct& p) {
  require(!p.x1.is_fractal_nz() && !p.out.is_fractal_nz(), "only x2 may have format FRACTAL_NZ.");
  if (!p.x2.is_fractal_nz()) {
    require(chip().product != kAtlasInference, "x2 has format %s, but must be FRACTAL_NZ on %s.", format_name(p.x2.format),
            chip().soc_version);
    require(p.x2.strides[1] == 1 || p.x2.strides[0] == 1, "x2 must be row-major or the transpose of that.");
    return;
  }
  require(p.k() > 1 && p.n() > 1, "x2 is %s, but FRACTAL_NZ weights with k = 1 or n = 1 are not supported.",
          to_string(p.x2.sizes).c_str());
  bool transposed = false;
  fractal_matrix(p.x2, &transposed);
}

void check_inner_limit(const QuantProduct& p) {
  const bool float_scale = p.column_scale.dtype == ACL_FLOAT || p.column_scale.dtype == ACL_BF16;
  if (chip().product != kAtlasInference && float_scale) return;
  const int64_t stored_last = p.x2.strides[1] == 1 ? p.n() : p.k();
  require(p.k() <= kInnerLimit && stored_last <= kInnerLimit, "x1 has k = %lld and x2 a last dimension of %lld, but at most 65535 are supported.",
          static_cast<long long>(p.k()), static_cast<long long>(stored_last));
}

void check_vector(const TensorView& tensor, const char* name, int64_t count, bool may_be_one) {
  if (!given(tensor)) return;
  require(tensor.rank() == 1 && (tensor.sizes[0] == count || (may_be_one && tensor.sizes[0] == 1)),
          "%s has sizes %s, but must have [%lld]%s.", name, to_string(tensor.sizes).c_str(), static_cast<long long>(count),
          may_be_one ? " or [1]" : "");
}

void check_product(const QuantProduct& p) {
  require_rank(p.x1, "x1", 2, 6);
  if (p.x2.rank() != 2) fail(kRuntimeError, "the emulator implements x2 of 2 dimensions only, not %d.", p.x2.rank());
  check_types(p);
  check_weight(p);
  require(p.x1.sizes.back(0) == p.k(), "x1 has %lld columns and x2 %lld rows, but they must be equal.",
          static_cast<long long>(p.x1.sizes.back(0)), static_cast<long long>(p.k()));
  require(p.x1.numel() > 0 && p.x2.numel() > 0, "empty tensors are not supported.");
  check_inner_limit(p);
  Dims sizes = p.x1.sizes;
  sizes[sizes.rank() - 1] = p.n();
  require_sizes(p.out, "out", sizes);
  const bool per_row_310p = chip().product == kAtlasInference && given(p.row_scale);
  check_vector(p.column_scale, "x2Scale", p.n(), !per_row_310p);
  check_vector(p.row_scale, "x1Scale", p.x1.sizes.back(1), false);
  check_vector(p.offset, "x2Offset", p.n(), true);
  if (given(p.bias)) {
    const bool flat = p.bias.rank() == 1 && p.bias.sizes[0] == p.n();
    require(flat || (p.bias.rank() == 3 && p.out.rank() == 3 && p.bias.numel() == p.n() && p.bias.sizes[2] == p.n()),
            "bias has sizes %s, but must have [%lld].", to_string(p.bias.sizes).c_str(), static_cast<long long>(p.n()));
  }
}

template <typename Args>
void check(const Args& a) {
  require(!given(a.yScale) && !given(a.x1Offset) && !given(a.yOffset), "yScale, x1Offset and yOffset must be null.");
  if (a.groupSize != 0) fail(kRuntimeError, "the emulator does not implement scales of groups (groupSize) yet.");
  check_product(product_of(a));
}

Int8Operand operand_of(const TensorView& x2) {
  if (x2.is_fractal_nz()) {
    bool transposed = false;
    const FractalMatrix matrix = fractal_matrix(x2, &transposed);
    return int8_fractal(matrix, transposed);
  }
  const auto* data = x2.data_as<int8_t>();
  return x2.strides[1] == 1 ? int8_row_major(data, x2.strides[0]) : int8_row_major_transposed(data, x2.strides[1]);
}

void run(const QuantProduct& p) {
  const DenseInput x1(p.x1), row_scale(p.row_scale), bias(p.bias);
  const DenseOutput out(p.out);
  const int64_t rows = p.rows(), n = p.n(), rows_of_a_batch = p.x1.sizes.back(1);
  std::vector<int32_t> sums(rows * n);
  gemm_int8({rows, n, p.k(), x1.data_as<int8_t>(), p.k(), operand_of(p.x2), sums.data(), n});
  Dequantization dequantization{column_values(p.column_scale, n), nullptr, {}};
  if (given(p.offset)) dequantization.float_bias = column_values(p.offset, n);
  if (given(p.bias) && p.bias.dtype == ACL_INT32) {
    dequantization.int_bias = bias.data_as<int32_t>();
  } else if (given(p.bias)) {
    dequantization.float_bias = column_values(p.bias, n);
  }
  const int64_t bytes = element_bits(p.out.dtype) / 8;
  for (int64_t row = 0; row < rows; ++row) {
    const float scale = given(p.row_scale) ? row_scale.data_as<float>()[row % rows_of_a_batch] : 1.0f;
    dequantization.apply(sums.data() + row * n, n, scale, out.data_as<char>() + row * n * bytes, p.out.dtype);
  }
}

Work work_of(const QuantProduct& p) {
  Work work;
  work.int8_cube = true;
  work.cube_flops = product_flops(p.rows(), p.n(), p.k(), 1, 8);
  for (const TensorView* tensor : {&p.x1, &p.x2, &p.row_scale, &p.column_scale, &p.offset, &p.bias}) {
    if (given(*tensor)) work.read_bytes += stored_bytes(*tensor);
  }
  work.written_bytes = static_cast<double>(size_in_bytes(p.out.sizes, p.out.dtype));
  return work;
}

}  // namespace

ACLNN_CHECK(QuantMatmulV5) { check(a); }
ACLNN_KERNEL(QuantMatmulV5) { run(product_of(a)); }
ACLNN_WORK(QuantMatmulV5) { return work_of(product_of(a)); }

ACLNN_CHECK(QuantMatmulWeightNz) {
  require(a.x2.is_fractal_nz(), "x2 has format %s, but must be FRACTAL_NZ.", format_name(a.x2.format));
  check(a);
}
ACLNN_KERNEL(QuantMatmulWeightNz) { run(product_of(a)); }
ACLNN_WORK(QuantMatmulWeightNz) { return work_of(product_of(a)); }

}  // namespace emulator::aclnn
