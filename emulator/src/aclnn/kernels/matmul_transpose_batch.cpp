// TransposeBatchMatMul: a batched product that reads and writes its batch dimension where attention has it.
// Semantics: hicann/ops-nn, matmul/transpose_batch_mat_mul/docs.
#include "aclnn/kernels/float_values.h"
#include "aclnn/kernels/matmul_product.h"
#include "aclnn/kernels/quant_parameters.h"
#include "aclnn_arguments.h"

namespace emulator::aclnn {

namespace {

struct TransposedProduct {
  const TensorView &x1, &x2, &bias, &scale;
  const IntArray &perm_x1, &perm_x2, &perm_y;
  int8_t cube_math;
  int64_t parts;  // of the output's last dimension, each a matrix of its own
  const TensorView& out;
};

TensorView permuted(const TensorView& view, const IntArray& perm) {
  if (perm.empty()) return view;
  TensorView result = view;
  for (int i = 0; i < 3; ++i) {
    result.sizes[i] = view.sizes[static_cast<int>(perm[i])];
    result.strides[i] = view.strides[static_cast<int>(perm[i])];
  }
  return result;
}

bool is_perm(const IntArray& perm, std::initializer_list<int64_t> expected) {
  return perm.size() == expected.size() && std::equal(perm.begin(), perm.end(), expected.begin());
}

// out is [rows, batch * n], or [parts, rows, batch * n / parts]: as the [batch, rows, n] that a product writes.
TensorView product_view(const TransposedProduct& p, int64_t batch, int64_t rows, int64_t n) {
  TensorView view = p.out;
  const int64_t width = batch * n / p.parts;
  view.sizes = {batch, rows, n};
  view.strides = {n, width, 1};
  if (p.parts > 1) view.strides[0] = p.parts == batch ? rows * n : 0;
  return view;
}

void check(const TransposedProduct& p) {
  require_rank(p.x1, "x1", 3, 3);
  require_rank(p.x2, "x2", 3, 3);
  require_dtype(p.x1, "x1", {ACL_FLOAT16, ACL_BF16, ACL_FLOAT});
  require_same_dtype(p.x2, "x2", p.x1, "x1");
  require(is_perm(p.perm_x1, {0, 1, 2}) || is_perm(p.perm_x1, {1, 0, 2}), "permX1 must be [0, 1, 2] or [1, 0, 2].");
  require(is_perm(p.perm_x2, {0, 1, 2}), "permX2 must be [0, 1, 2].");
  require(is_perm(p.perm_y, {1, 0, 2}), "permY must be [1, 0, 2].");
  require(!p.bias.defined(), "bias is not supported: it must be null.");
  const TensorView x1 = permuted(p.x1, p.perm_x1);
  const int64_t batch = x1.sizes[0], rows = x1.sizes[1], n = p.x2.sizes[2];
  require(p.x2.sizes[0] == batch && p.x2.sizes[1] == x1.sizes[2], "x1 %s (permuted) and x2 %s do not fit: [B, M, K] and [B, K, N].",
          to_string(x1.sizes).c_str(), to_string(p.x2.sizes).c_str());
  require(x1.sizes[2] % 16 == 0 && n % 16 == 0, "K and N are %lld and %lld, but must be multiples of 16.",
          static_cast<long long>(x1.sizes[2]), static_cast<long long>(n));
  require(p.x1.sizes[2] < 65536 && p.x2.sizes[2] < 65536, "the last dimensions of x1 and x2 must be less than 65536.");
  require(p.parts >= 1 && p.parts <= n * batch && batch * n % p.parts == 0, "batchSplitFactor is %lld, but must divide %lld.",
          static_cast<long long>(p.parts), static_cast<long long>(batch * n));
  if (p.scale.defined()) {
    require_dtype(p.x1, "x1", {ACL_FLOAT16});
    require_dtype(p.scale, "scale", {ACL_INT64, ACL_UINT64});
    require_sizes(p.scale, "scale", {batch * n});
    require(p.parts == 1, "batchSplitFactor is %lld, but must be 1 with a scale.", static_cast<long long>(p.parts));
    require_dtype(p.out, "out", {ACL_INT8});
    require_sizes(p.out, "out", {rows, 1, batch * n});
    return;
  }
  require_same_dtype(p.out, "out", p.x1, "x1");
  require_sizes(p.out, "out", p.parts == 1 ? Dims{rows, batch, n} : Dims{p.parts, rows, batch * n / p.parts});
}

// Products in float32 [batch, rows, n], then each value to its place.
void run(const TransposedProduct& p) {
  const TensorView x1 = permuted(p.x1, p.perm_x1);
  const int64_t batch = x1.sizes[0], rows = x1.sizes[1], n = p.x2.sizes[2], width = batch * n / p.parts;
  if (p.out.numel() == 0) return;
  if (!p.scale.defined() && (p.parts == 1 || p.parts == batch)) {
    const TensorView out = product_view(p, batch, rows, n);
    emulator::aclnn::run(MatrixProduct{.left = x1, .right = p.x2, .out = out, .cube_math = p.cube_math});
    return;
  }
  std::vector<float> sums(batch * rows * n), result(sums.size());
  TensorView whole;
  whole.base = sums.data();
  whole.dtype = ACL_FLOAT;
  whole.sizes = {batch, rows, n};
  whole.strides = {rows * n, n, 1};
  whole.storage_sizes = {static_cast<int64_t>(sums.size())};
  emulator::aclnn::run(MatrixProduct{.left = x1, .right = p.x2, .out = whole, .cube_math = p.cube_math});
  const std::vector<float> scale = p.scale.defined() ? column_values(p.scale, batch * n) : std::vector<float>{};
  for (int64_t i = 0; i < static_cast<int64_t>(sums.size()); ++i) {
    const int64_t column = i / (rows * n) * n + i % n, row = i / n % rows;
    result[(column / width * rows + row) * width + column % width] = sums[i] * (scale.empty() ? 1.0f : scale[column]);
  }
  store_values(p.out, result);
}

Work work_of(const TransposedProduct& p) {
  Work work;
  const double n = static_cast<double>(p.x2.sizes[2]);
  work.cube_flops = 2.0 * static_cast<double>(p.x1.numel()) * n;
  work.read_bytes = static_cast<double>(size_in_bytes(p.x1.sizes, p.x1.dtype) + size_in_bytes(p.x2.sizes, p.x2.dtype));
  work.written_bytes = static_cast<double>(size_in_bytes(p.out.sizes, p.out.dtype));
  return work;
}

template <typename Args>
TransposedProduct product_of(const Args& a) {
  return {a.x1, a.x2, a.bias, a.scale, a.permX1, a.permX2, a.permY, a.cubeMathType, a.batchSplitFactor, a.out};
}

}  // namespace

ACLNN_CHECK(TransposeBatchMatMul) { check(product_of(a)); }
ACLNN_KERNEL(TransposeBatchMatMul) { run(product_of(a)); }
ACLNN_WORK(TransposeBatchMatMul) { return work_of(product_of(a)); }

ACLNN_CHECK(TransposeBatchMatMulWeightNz) {
  require(a.x2.is_fractal_nz(), "x2 has format %s, but must be FRACTAL_NZ.", format_name(a.x2.format));
  check(product_of(a));
}
ACLNN_KERNEL(TransposeBatchMatMulWeightNz) { run(product_of(a)); }
ACLNN_WORK(TransposeBatchMatMulWeightNz) { return work_of(product_of(a)); }

}  // namespace emulator::aclnn
