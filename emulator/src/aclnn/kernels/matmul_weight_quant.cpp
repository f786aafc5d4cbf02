// Products with weights of few bits and activations of sixteen: aclnnWeightQuantBatchMatmulV2 and V3.
// Semantics and limits by product: hicann/ops-nn, matmul/weight_quant_batch_matmul_v2/docs.
//
// Implemented: row-major or transposed int8 weights, row-major int4 weights packed eight to an int32; a scale for the
// tensor, for each column or for each group of rows; no quantized output. FRACTAL_NZ weights are refused as not
// implemented.
#include <algorithm>
#include <vector>

#include "aclnn/kernels/contiguous.h"
#include "aclnn/kernels/weight_only.h"
#include "aclnn/operator.h"
#include "aclnn_arguments.h"
#include "core/cost.h"
#include "math/convert.h"
#include "math/gemm.h"
#include "silicon/rules.h"

namespace emulator::aclnn {

namespace {

constexpr int64_t kGroupStep = 32;
constexpr int64_t kSizeLimit = 65535;

struct WeightOnlyProduct {
  const TensorView& x;       // [m, k]
  const TensorView& weight;  // [k, n] int8, or [k, n / 8] int32
  const TensorView& scale;   // [1], [n] or [groups, n]
  const TensorView& offset;  // like scale, may be undefined
  const TensorView& bias;    // [n] or [1, n], may be undefined
  const TensorView& y;
  int64_t group_size;

  bool packed() const { return weight.dtype == ACL_INT32; }
  int64_t k() const { return weight.sizes[0]; }
  int64_t n() const { return weight.sizes[1] * (packed() ? kPackedInt4 : 1); }
};

bool given(const TensorView& tensor) { return tensor.defined() && tensor.numel() > 0; }

void check_weight_type(const WeightOnlyProduct& p) {
  if (chip().product == kAtlasInference) {
    require_dtype(p.x, "x", {ACL_FLOAT16});
    require_dtype(p.weight, "weight", {ACL_INT8});
    return;
  }
  require_dtype(p.x, "x", {ACL_FLOAT16, ACL_BF16});
  if (p.weight.dtype != ACL_INT8 && p.weight.dtype != ACL_INT32) {
    fail(kRuntimeError, "the emulator implements weights of int8 and of int4 packed into int32 only, not %s.",
         dtype_name(p.weight.dtype));
  }
}

void check_scale(const WeightOnlyProduct& p) {
  require_same_dtype(p.scale, "antiquantScale", p.x, "x");
  if (p.group_size == 0) {
    require(p.scale.numel() == 1 || p.scale.numel() == p.n(), "antiquantScale has sizes %s, but must have 1 or %lld elements.",
            to_string(p.scale.sizes).c_str(), static_cast<long long>(p.n()));
    // On 310P a column of the weight is a row of its scale.
    const bool row_vector = p.scale.rank() == 2 && p.scale.sizes[0] == 1 && p.n() > 1 && p.scale.numel() > 1;
    require(chip().product != kAtlasInference || !row_vector, "antiquantScale must have sizes [n] or [n, 1] on %s.",
            chip().soc_version);
  } else {
    require(p.group_size >= kGroupStep && p.group_size < p.k() && p.group_size % kGroupStep == 0,
            "antiquantGroupSize is %lld, but must be 0 or a multiple of 32 from 32 to %lld.",
            static_cast<long long>(p.group_size), static_cast<long long>(p.k() - 1));
    require_sizes(p.scale, "antiquantScale", {(p.k() + p.group_size - 1) / p.group_size, p.n()});
  }
  if (!given(p.offset)) return;
  require_same_dtype(p.offset, "antiquantOffset", p.x, "x");
  require_sizes(p.offset, "antiquantOffset", p.scale.sizes);
}

void check_product(const WeightOnlyProduct& p) {
  if (p.weight.is_fractal_nz()) fail(kRuntimeError, "the emulator does not implement FRACTAL_NZ weights here yet.");
  if (p.x.rank() != 2 && chip().product == kAtlasInference) fail(kRuntimeError, "the emulator implements 2 dimensions only.");
  require_rank(p.x, "x", 2, 2);
  require_rank(p.weight, "weight", 2, 2);
  check_weight_type(p);
  if (p.packed() && p.weight.strides[1] != 1) {
    fail(kRuntimeError, "the emulator does not implement transposed int4 weights yet.");
  }
  require(p.x.sizes[1] == p.k(), "x has %lld columns and weight %lld rows, but they must be equal.",
          static_cast<long long>(p.x.sizes[1]), static_cast<long long>(p.k()));
  require(p.x.numel() > 0 && p.weight.numel() > 0, "empty tensors are not supported.");
  require(chip().product == kA5 || (p.k() <= kSizeLimit && p.n() <= kSizeLimit), "k is %lld and n %lld, but at most 65535 are supported.",
          static_cast<long long>(p.k()), static_cast<long long>(p.n()));
  check_scale(p);
  if (given(p.bias)) {
    const aclDataType type = p.x.dtype == ACL_BF16 ? ACL_FLOAT : ACL_FLOAT16;
    require_dtype(p.bias, "bias", {type});
    require(p.bias.numel() == p.n(), "bias has sizes %s, but must have %lld elements.", to_string(p.bias.sizes).c_str(),
            static_cast<long long>(p.n()));
  }
  require_same_dtype(p.y, "y", p.x, "x");
  require_sizes(p.y, "y", {p.x.sizes[0], p.n()});
}

template <typename Args>
WeightOnlyProduct product_of(const Args& a) {
  return {a.x, a.weight, a.antiquantScale, a.antiquantOffsetOptional, a.biasOptional, a.y, a.antiquantGroupSize};
}

template <typename Args>
void check(const Args& a) {
  if (given(a.quantScaleOptional) || given(a.quantOffsetOptional)) {
    require(chip().product != kAtlasInference, "quantScale and quantOffset must be null on %s.", chip().soc_version);
    fail(kRuntimeError, "the emulator does not implement quantized outputs here yet.");
  }
  check_product(product_of(a));
}

std::vector<float> floats(const TensorView& tensor) {
  const DenseInput input(tensor);
  std::vector<float> values(tensor.numel());
  to_float(input.data(), tensor.dtype, values.data(), tensor.numel());
  return values;
}

std::vector<uint16_t> matrix_of(const WeightOnlyProduct& p) {
  const DenseInput weight(p.weight);
  const std::vector<float> scale = floats(p.scale), offset = given(p.offset) ? floats(p.offset) : std::vector<float>();
  return dequantized({weight.data(), p.weight.dtype, p.n()}, p.k(), scale.data(), offset.empty() ? nullptr : offset.data(),
                     scale.size() == 1, p.group_size == 0 ? p.k() : p.group_size, p.x.dtype);
}

void run(const WeightOnlyProduct& p) {
  const DenseInput x(p.x), bias(p.bias);
  const DenseOutput y(p.y);
  const std::vector<uint16_t> matrix = matrix_of(p);
  Gemm g;
  g.m = p.x.sizes[0];
  g.n = p.n();
  g.k = p.k();
  g.a = x.data();
  g.a_dtype = p.x.dtype;
  g.a_row_stride = p.k();
  g.b = row_major(matrix.data(), p.x.dtype, g.n);
  g.c = y.data();
  g.c_dtype = p.y.dtype;
  g.c_row_stride = g.n;
  if (given(p.bias)) {
    g.bias = bias.data();
    g.bias_dtype = p.bias.dtype;
  }
  gemm(g);
}

// The stored weight is read; each of its elements is converted, shifted and scaled by the vector unit.
Work work_of(const WeightOnlyProduct& p) {
  Work work;
  work.cube_flops = product_flops(p.y.numel() / p.n(), p.n(), p.k());
  work.vector_flops = 3.0 * static_cast<double>(p.k()) * static_cast<double>(p.n());
  for (const TensorView* tensor : {&p.x, &p.weight, &p.scale, &p.offset, &p.bias}) {
    if (given(*tensor)) work.read_bytes += static_cast<double>(size_in_bytes(tensor->sizes, tensor->dtype));
  }
  work.written_bytes = static_cast<double>(size_in_bytes(p.y.sizes, p.y.dtype));
  if (enforces(Rule::kWeightQuantLayout)) {
    // TransData of an ND weight in every call, and a transposition of one stored [k, n] before it.
    const int passes = p.weight.strides[1] == 1 ? 2 : 1;
    const double weight = passes * static_cast<double>(size_in_bytes(p.weight.sizes, p.weight.dtype));
    work.read_bytes += weight;
    work.written_bytes += weight;
  }
  return work;
}

}  // namespace

ACLNN_CHECK(WeightQuantBatchMatmulV2) { check(a); }
ACLNN_KERNEL(WeightQuantBatchMatmulV2) { run(product_of(a)); }
ACLNN_WORK(WeightQuantBatchMatmulV2) { return work_of(product_of(a)); }

ACLNN_CHECK(WeightQuantBatchMatmulV3) { check(a); }
ACLNN_KERNEL(WeightQuantBatchMatmulV3) { run(product_of(a)); }
ACLNN_WORK(WeightQuantBatchMatmulV3) { return work_of(product_of(a)); }

}  // namespace emulator::aclnn
