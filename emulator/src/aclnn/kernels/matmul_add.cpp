// Matrix products with an addend: out = beta * self + alpha * (left @ right). Semantics: hicann/ops-nn, matmul/*/docs.
#include <ATen/ops/addbmm.h>
#include <ATen/ops/addr.h>

#include "aclnn/kernels/aten_arguments.h"
#include "aclnn/kernels/matmul_product.h"

namespace emulator::aclnn {

namespace {

// A product with the scalars of torch.addmm; self may broadcast to out.
struct AddedProduct {
  const TensorView& self;
  const TensorView& left;
  const TensorView& right;
  const TensorView& out;
  const Scalar& beta;
  const Scalar& alpha;
  int8_t cube_math;

  operator MatrixProduct() const {
    return {left, right, out, cube_math, alpha.to_double(), self.defined() ? beta.to_double() : 0.0,
            self.defined() ? &self : nullptr};
  }
};

void check(const AddedProduct& p, int rank) {
  require_rank(p.left, rank == 2 ? "mat1" : "batch1", rank, rank);
  require_rank(p.right, rank == 2 ? "mat2" : "batch2", rank, rank);
  check_product(p);
  if (!p.self.defined()) return;
  require_dtype(p.self, "self", {ACL_FLOAT16, ACL_BF16, ACL_FLOAT});
  require(broadcast_sizes(p.self, "self", p.out, "out") == p.out.sizes, "self %s cannot be broadcast to out %s.",
          to_string(p.self.sizes).c_str(), to_string(p.out.sizes).c_str());
}

}  // namespace

ACLNN_CHECK(Addmm) { check({a.self, a.mat1, a.mat2, a.out, a.beta, a.alpha, a.cubeMathType}, 2); }
ACLNN_KERNEL(Addmm) { run(AddedProduct{a.self, a.mat1, a.mat2, a.out, a.beta, a.alpha, a.cubeMathType}); }
ACLNN_WORK(Addmm) { return work_of(AddedProduct{a.self, a.mat1, a.mat2, a.out, a.beta, a.alpha, a.cubeMathType}); }

ACLNN_CHECK(AddmmWeightNz) {
  require(a.mat2.is_fractal_nz(), "mat2 has format %s, but must be FRACTAL_NZ.", format_name(a.mat2.format));
  check({a.self, a.mat1, a.mat2, a.out, a.beta, a.alpha, a.cubeMathType}, 2);
}
ACLNN_KERNEL(AddmmWeightNz) { run(AddedProduct{a.self, a.mat1, a.mat2, a.out, a.beta, a.alpha, a.cubeMathType}); }
ACLNN_WORK(AddmmWeightNz) { return work_of(AddedProduct{a.self, a.mat1, a.mat2, a.out, a.beta, a.alpha, a.cubeMathType}); }

ACLNN_CHECK(InplaceAddmm) {
  require_rank(a.selfRef, "selfRef", 2, 2);
  check({a.selfRef, a.mat1, a.mat2, a.selfRef, a.beta, a.alpha, a.cubeMathType}, 2);
}
ACLNN_KERNEL(InplaceAddmm) { run(AddedProduct{a.selfRef, a.mat1, a.mat2, a.selfRef, a.beta, a.alpha, a.cubeMathType}); }
ACLNN_WORK(InplaceAddmm) {
  return work_of(AddedProduct{a.selfRef, a.mat1, a.mat2, a.selfRef, a.beta, a.alpha, a.cubeMathType});
}

ACLNN_CHECK(Baddbmm) { check({a.self, a.batch1, a.batch2, a.out, a.beta, a.alpha, a.cubeMathType}, 3); }
ACLNN_KERNEL(Baddbmm) { run(AddedProduct{a.self, a.batch1, a.batch2, a.out, a.beta, a.alpha, a.cubeMathType}); }
ACLNN_WORK(Baddbmm) { return work_of(AddedProduct{a.self, a.batch1, a.batch2, a.out, a.beta, a.alpha, a.cubeMathType}); }

// out = beta * self + alpha * sum over b of batch1[b] @ batch2[b]
ACLNN_CHECK(Addbmm) {
  require_rank(a.batch1, "batch1", 3, 3);
  require_rank(a.batch2, "batch2", 3, 3);
  require(a.batch1.sizes[0] == a.batch2.sizes[0], "batch1 has %lld matrices and batch2 %lld, but they must be equal.",
          static_cast<long long>(a.batch1.sizes[0]), static_cast<long long>(a.batch2.sizes[0]));
  TensorView one = a.out;  // the shape rules are those of one product of the batch
  one.sizes = Dims{1, a.out.sizes.rank() == 2 ? a.out.sizes[0] : 0, a.out.sizes.rank() == 2 ? a.out.sizes[1] : 0};
  TensorView first1 = a.batch1, first2 = a.batch2;
  first1.sizes[0] = first2.sizes[0] = 1;
  check({a.self, first1, first2, one, a.beta, a.alpha, a.cubeMathType}, 3);
}
ACLNN_KERNEL(Addbmm) {
  const at::Tensor self = in(a.self).to(at::kFloat), batch1 = in(a.batch1).to(at::kFloat), batch2 = in(a.batch2).to(at::kFloat);
  store(a.out, at::addbmm(self, batch1, batch2, scalar(a.beta), scalar(a.alpha)));
}
ACLNN_WORK(Addbmm) {
  Work work = work_of(AddedProduct{a.self, a.batch1, a.batch2, a.out, a.beta, a.alpha, a.cubeMathType});
  work.cube_flops *= static_cast<double>(a.batch1.sizes[0]);
  return work;
}

namespace {

// A vector as a matrix of one column; one of a single element stays broadcastable.
TensorView as_column(const TensorView& vector) {
  if (vector.rank() != 1) return vector;
  TensorView column = vector;
  column.sizes = {vector.sizes[0], 1};
  column.strides = {vector.strides[0], 1};
  return column;
}

}  // namespace

// out = beta * self + alpha * mat @ vec
ACLNN_CHECK(Addmv) {
  require_rank(a.mat, "mat", 2, 2);
  require_rank(a.vec, "vec", 1, 1);
  require_rank(a.self, "self", 0, 1);
  require_rank(a.out, "out", 1, 1);
  check({as_column(a.self), a.mat, as_column(a.vec), as_column(a.out), a.beta, a.alpha, a.cubeMathType}, 2);
}
ACLNN_KERNEL(Addmv) {
  const TensorView self = as_column(a.self), vec = as_column(a.vec), out = as_column(a.out);
  run(AddedProduct{self, a.mat, vec, out, a.beta, a.alpha, a.cubeMathType});
}

namespace {

void check_outer(const TensorView& self, const TensorView& vec1, const TensorView& vec2, const TensorView& out) {
  require_rank(vec1, "vec1", 1, 1);
  require_rank(vec2, "vec2", 1, 1);
  require_rank(self, "self", 0, 2);
  require_sizes(out, "out", {vec1.sizes[0], vec2.sizes[0]});
  require(broadcast_sizes(self, "self", out, "out") == out.sizes, "self %s cannot be broadcast to out %s.",
          to_string(self.sizes).c_str(), to_string(out.sizes).c_str());
}

at::Scalar factor(const Scalar& value) { return scalar_or_none(value).value_or(at::Scalar(1)); }

}  // namespace

// out = beta * self + alpha * vec1 (outer product) vec2
ACLNN_CHECK(Addr) { check_outer(a.self, a.vec1, a.vec2, a.out); }
ACLNN_KERNEL(Addr) {
  store(a.out, at::addr(in(a.self), in(a.vec1), in(a.vec2), factor(a.betaOptional), factor(a.alphaOptional)));
}
ACLNN_CHECK(InplaceAddr) { check_outer(a.selfRef, a.vec1, a.vec2, a.selfRef); }
ACLNN_KERNEL(InplaceAddr) {
  store(a.selfRef, at::addr(in(a.selfRef), in(a.vec1), in(a.vec2), factor(a.betaOptional), factor(a.alphaOptional)));
}

}  // namespace emulator::aclnn
