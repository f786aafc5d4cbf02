// Systems of equations with triangular matrices. Semantics: hicann/ops-math, math/triangular_solve/docs and
// op_host/op_api/aclnn_triangular_solve.cpp.
#include <ATen/ops/linalg_solve_triangular.h>

#include "aclnn/kernels/aten_arguments.h"

namespace emulator::aclnn {

namespace {

// The sizes of the right-hand sides once both operands have the same batch; `columns` of each.
Dims solved_sizes(const TensorView& self, const TensorView& a, int64_t columns) {
  Dims square = self.sizes;
  square[square.rank() - 1] = self.sizes.back(1);
  Dims sizes = broadcast_sizes(square, "self", a.sizes, "A");
  sizes[sizes.rank() - 1] = columns;
  return sizes;
}

}  // namespace

ACLNN_CHECK(TriangularSolve) {
  require_dtype(a.self, "self", {ACL_FLOAT, ACL_DOUBLE, ACL_COMPLEX64, ACL_COMPLEX128});
  require_same_dtype(a.A, "A", a.self, "self");
  require_same_dtype(a.xOut, "xOut", a.self, "self");
  require_rank(a.self, "self", 2, 8);
  require_rank(a.A, "A", 2, 8);
  const int64_t order = a.A.sizes.back(0);
  require(a.A.sizes.back(1) == order, "A must be square matrices, but they are %s.", to_string(a.A.sizes).c_str());
  require(a.self.sizes.back(1) == order, "self has %lld rows, but the matrices of A have %lld.",
          static_cast<long long>(a.self.sizes.back(1)), static_cast<long long>(order));
  require(!a.unitriangular || a.self.dtype == ACL_FLOAT, "unitriangular takes float32 alone, but self is %s.",
          dtype_name(a.self.dtype));
  require_sizes(a.xOut, "xOut", solved_sizes(a.self, a.A, a.self.sizes.back(0)));
  if (!a.mOut.defined()) return;
  require_same_dtype(a.mOut, "mOut", a.self, "self");
  require_sizes(a.mOut, "mOut", solved_sizes(a.self, a.A, order));
}

ACLNN_KERNEL(TriangularSolve) {
  const at::Tensor matrices = in(a.A);
  store(a.xOut, at::linalg_solve_triangular(a.transpose ? matrices.mT() : matrices, in(a.self),
                                            a.upper != a.transpose, /*left=*/true, a.unitriangular));
  // The document says one triangle of A; the operator copies A as a whole, as torch does.
  if (a.mOut.defined()) store(a.mOut, matrices.expand(in(a.mOut).sizes()));
}

// MatrixTriangularSolve is an AI CPU operator: no core runs it.
ACLNN_WORK(TriangularSolve) {
  constexpr double kAiCpuStepNs = 1;  // assumed: an order of magnitude
  const double order = static_cast<double>(a.A.sizes.back(0));
  return {.ai_cpu_ns = kAiCpuLaunchNs + kAiCpuStepNs * static_cast<double>(a.xOut.numel()) * order};
}

}  // namespace emulator::aclnn
