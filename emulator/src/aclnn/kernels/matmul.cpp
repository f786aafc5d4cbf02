// Matrix products without an addend: aclnnMm, Matmul, BatchMatMul, Mv, Dot and their FRACTAL_NZ forms.
// Semantics: hicann/ops-nn, matmul/*/docs.
#include "aclnn/kernels/matmul_product.h"
#include "aclnn_arguments.h"
#include "silicon/rules.h"

namespace emulator::aclnn {

namespace {

void require_nz_weight(const TensorView& weight) {
  require(weight.is_fractal_nz(), "mat2 has format %s, but must be FRACTAL_NZ.", format_name(weight.format));
  require(weight.sizes.back(0) > 1 && weight.sizes.back(1) > 1,
          "mat2 is %s, but FRACTAL_NZ weights with k = 1 or n = 1 are not supported.", to_string(weight.sizes).c_str());
}

// A5 computes nothing in float32 or HFLOAT32 with FRACTAL_NZ weights.
void require_nz_cube_math(const TensorView& self, const TensorView& weight, int8_t cube_math) {
  if (chip().product != kA5) return;
  require(self.dtype != ACL_FLOAT && weight.dtype != ACL_FLOAT, "float32 is not supported on Ascend 950 products.");
  require(cube_math == kKeepDtype || cube_math == kUseFp16, "cubeMathType %d is not supported on Ascend 950 products.",
          cube_math);
}

void check_batch_rank(const TensorView& self, const TensorView& mat2, const TensorView& out) {
  require_rank(self, "self", 3, 3);
  require_rank(mat2, "mat2", 3, 3);
  require_rank(out, "out", 3, 3);
}

bool is_vector(const TensorView& view) { return view.rank() == 1; }

// The three matrices of a product whose operands may be vectors.
struct Matrices {
  TensorView left, right, out;
  Matrices(const TensorView& self, const TensorView& mat2, const TensorView& result)
      : left(as_left_matrix(self)),
        right(as_right_matrix(mat2)),
        out(as_product(result, is_vector(self), is_vector(mat2))) {}
};

}  // namespace

ACLNN_CHECK(Mm) {
  require_rank(a.self, "self", 2, 2);
  require_rank(a.mat2, "mat2", 2, 2);
  check_product({a.self, a.mat2, a.out, a.cubeMathType});
}
ACLNN_KERNEL(Mm) { run({a.self, a.mat2, a.out, a.cubeMathType}); }
ACLNN_WORK(Mm) { return work_of({a.self, a.mat2, a.out}); }

ACLNN_CHECK(Matmul) {
  require_rank(a.self, "self", 1, 6);
  require_rank(a.mat2, "mat2", 1, 6);
  const Matrices m(a.self, a.mat2, a.out);
  // The product of two vectors is computed by the vector unit, which has no such modes.
  const bool dot = is_vector(a.self) && is_vector(a.mat2);
  check_product({m.left, m.right, m.out, dot ? int8_t{kAllowDownPrecision} : a.cubeMathType});
}
ACLNN_KERNEL(Matmul) {
  const Matrices m(a.self, a.mat2, a.out);
  run({m.left, m.right, m.out, is_vector(a.self) && is_vector(a.mat2) ? int8_t{kKeepDtype} : a.cubeMathType});
}
ACLNN_WORK(Matmul) {
  const Matrices m(a.self, a.mat2, a.out);
  return work_of({m.left, m.right, m.out});
}

ACLNN_CHECK(MatmulWeightNz) {
  require_rank(a.self, "self", 2, chip().product == kA5 ? 3 : 2);
  require_rank(a.mat2, "mat2", 2, chip().product == kA5 ? 3 : 2);
  require_nz_weight(a.mat2);
  require_nz_cube_math(a.self, a.mat2, a.cubeMathType);
  check_product({a.self, a.mat2, a.out, a.cubeMathType});
  if (a.out.dtype == ACL_FLOAT && a.self.dtype == ACL_FLOAT16 && enforces(Rule::kNzFloat32Result)) {
    refuse_by(Rule::kNzFloat32Result, kInnerNullptr,
              "the product of float16 with FRACTAL_NZ weights is float16 and cannot be copied to out, which is float32: keep "
              "these weights in ND, or take a float16 result");
  }
}
ACLNN_KERNEL(MatmulWeightNz) {
  const MatrixProduct product{a.self, a.mat2, a.out, a.cubeMathType};
  if (a.self.rank() == 2 && enforces(Rule::kNzRowOrder)) return run_in_row_order(product);
  run(product);
}
ACLNN_WORK(MatmulWeightNz) { return work_of({a.self, a.mat2, a.out}); }

ACLNN_CHECK(BatchMatMul) {
  check_batch_rank(a.self, a.mat2, a.out);
  check_product({a.self, a.mat2, a.out, a.cubeMathType});
}
ACLNN_KERNEL(BatchMatMul) { run({a.self, a.mat2, a.out, a.cubeMathType}); }
ACLNN_WORK(BatchMatMul) { return work_of({a.self, a.mat2, a.out}); }

ACLNN_CHECK(BatchMatMulWeightNz) {
  check_batch_rank(a.self, a.mat2, a.out);
  require_nz_weight(a.mat2);
  require_nz_cube_math(a.self, a.mat2, a.cubeMathType);
  check_product({a.self, a.mat2, a.out, a.cubeMathType});
}
ACLNN_KERNEL(BatchMatMulWeightNz) { run({a.self, a.mat2, a.out, a.cubeMathType}); }
ACLNN_WORK(BatchMatMulWeightNz) { return work_of({a.self, a.mat2, a.out}); }

ACLNN_CHECK(Mv) {
  require_rank(a.self, "self", 2, 2);
  require_rank(a.vec, "vec", 1, 1);
  require_same_dtype(a.self, "self", a.vec, "vec");
  const Matrices m(a.self, a.vec, a.out);
  check_product({m.left, m.right, m.out, a.cubeMathType});
}
ACLNN_KERNEL(Mv) {
  const Matrices m(a.self, a.vec, a.out);
  run({m.left, m.right, m.out, a.cubeMathType});
}
ACLNN_WORK(Mv) {
  const Matrices m(a.self, a.vec, a.out);
  return work_of({m.left, m.right, m.out});
}

ACLNN_CHECK(Dot) {
  require_rank(a.self, "self", 1, 1);
  require_rank(a.tensor, "tensor", 1, 1);
  require_same_dtype(a.self, "self", a.tensor, "tensor");
  const Matrices m(a.self, a.tensor, a.out);
  check_product({m.left, m.right, m.out, kAllowDownPrecision});
}
ACLNN_KERNEL(Dot) {
  const Matrices m(a.self, a.tensor, a.out);
  run({m.left, m.right, m.out, kKeepDtype});
}

}  // namespace emulator::aclnn
