// Comparisons, boolean and bitwise operators, selection and clamping.
#include <ATen/ops/bitwise_and.h>
#include <ATen/ops/bitwise_left_shift.h>
#include <ATen/ops/bitwise_or.h>
#include <ATen/ops/bitwise_right_shift.h>
#include <ATen/ops/bitwise_xor.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/clamp_max.h>
#include <ATen/ops/clamp_min.h>
#include <ATen/ops/eq.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ge.h>
#include <ATen/ops/gt.h>
#include <ATen/ops/isclose.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/isin.h>
#include <ATen/ops/isneginf.h>
#include <ATen/ops/isposinf.h>
#include <ATen/ops/le.h>
#include <ATen/ops/logical_and.h>
#include <ATen/ops/logical_or.h>
#include <ATen/ops/logical_xor.h>
#include <ATen/ops/lt.h>
#include <ATen/ops/ne.h>
#include <ATen/ops/where.h>

#include "aclnn/kernels/elementwise.h"

namespace emulator::aclnn {

ACLNN_COMPARISON(EqTensor, eq, self, other)
ACLNN_SCALAR_COMPARISON(EqScalar, eq, self, other)
ACLNN_COMPARISON_IN_PLACE(InplaceEqTensor, eq, selfRef, other)
ACLNN_SCALAR_COMPARISON_IN_PLACE(InplaceEqScalar, eq, selfRef, other)
ACLNN_COMPARISON(NeTensor, ne, self, other)
ACLNN_SCALAR_COMPARISON(NeScalar, ne, self, other)
ACLNN_COMPARISON_IN_PLACE(InplaceNeTensor, ne, selfRef, other)
ACLNN_SCALAR_COMPARISON_IN_PLACE(InplaceNeScalar, ne, selfRef, other)
ACLNN_COMPARISON(LtTensor, lt, self, other)
ACLNN_SCALAR_COMPARISON(LtScalar, lt, self, other)
ACLNN_COMPARISON_IN_PLACE(InplaceLtTensor, lt, selfRef, other)
ACLNN_SCALAR_COMPARISON_IN_PLACE(InplaceLtScalar, lt, selfRef, other)
ACLNN_COMPARISON(LeTensor, le, self, other)
ACLNN_SCALAR_COMPARISON(LeScalar, le, self, other)
ACLNN_COMPARISON_IN_PLACE(InplaceLeTensor, le, selfRef, other)
ACLNN_SCALAR_COMPARISON_IN_PLACE(InplaceLeScalar, le, selfRef, other)
ACLNN_COMPARISON(GtTensor, gt, self, other)
ACLNN_SCALAR_COMPARISON(GtScalar, gt, self, other)
ACLNN_COMPARISON_IN_PLACE(InplaceGtTensor, gt, selfRef, other)
ACLNN_SCALAR_COMPARISON_IN_PLACE(InplaceGtScalar, gt, selfRef, other)
ACLNN_COMPARISON(GeTensor, ge, self, other)
ACLNN_SCALAR_COMPARISON(GeScalar, ge, self, other)
ACLNN_COMPARISON_IN_PLACE(InplaceGeTensor, ge, selfRef, other)
ACLNN_SCALAR_COMPARISON_IN_PLACE(InplaceGeScalar, ge, selfRef, other)

ACLNN_COMPARISON(LogicalAnd, logical_and, self, other)
ACLNN_COMPARISON(LogicalOr, logical_or, self, other)
ACLNN_COMPARISON(LogicalXor, logical_xor, self, other)
ACLNN_COMPARISON_IN_PLACE(InplaceLogicalAnd, logical_and, selfRef, other)
ACLNN_COMPARISON_IN_PLACE(InplaceLogicalOr, logical_or, selfRef, other)

ACLNN_BINARY(BitwiseAndTensor, bitwise_and, self, other)
ACLNN_BINARY_SCALAR(BitwiseAndScalar, bitwise_and, self, other)
ACLNN_BINARY_IN_PLACE(InplaceBitwiseAndTensor, bitwise_and, selfRef, other)
ACLNN_BINARY_SCALAR_IN_PLACE(InplaceBitwiseAndScalar, bitwise_and, selfRef, other)
ACLNN_BINARY(BitwiseOrTensor, bitwise_or, self, other)
ACLNN_BINARY_SCALAR(BitwiseOrScalar, bitwise_or, self, other)
ACLNN_BINARY(BitwiseXorTensor, bitwise_xor, self, other)
ACLNN_BINARY_SCALAR(BitwiseXorScalar, bitwise_xor, self, other)
ACLNN_BINARY_IN_PLACE(InplaceBitwiseXorTensor, bitwise_xor, selfRef, other)
ACLNN_BINARY_SCALAR_IN_PLACE(InplaceBitwiseXorScalar, bitwise_xor, selfRef, other)
ACLNN_BINARY(LeftShift, bitwise_left_shift, self, shiftBits)
ACLNN_BINARY_SCALAR(LeftShifts, bitwise_left_shift, self, shiftBits)
ACLNN_BINARY(RightShift, bitwise_right_shift, input, shiftBits)

ACLNN_KERNEL(IsFinite) { store(a.out, at::isfinite(in(a.self))); }
ACLNN_KERNEL(IsNegInf) { at::isneginf_out(out(a.out), in(a.self)); }
ACLNN_KERNEL(IsPosInf) { at::isposinf_out(out(a.out), in(a.self)); }
ACLNN_CHECK(IsClose) { check_comparison(a.self, a.other, a.out); }
ACLNN_KERNEL(IsClose) { store(a.out, at::isclose(in(a.self), in(a.other), a.rtol, a.atol, a.equalNan)); }
ACLNN_KERNEL(Equal) { as_aten(a.out).fill_(at::equal(in(a.self), in(a.other))); }
ACLNN_KERNEL(IsInScalarTensor) {
  at::isin_out(out(a.out), scalar(a.element), in(a.testElements), a.assumeUnique, a.invert);
}
ACLNN_KERNEL(IsInTensorScalar) {
  at::isin_out(out(a.out), in(a.element), scalar(a.testElement), a.assumeUnique, a.invert);
}

ACLNN_CHECK(SWhere) {
  require_dtype(a.condition, "condition", {ACL_BOOL, ACL_UINT8});
  const Dims branches = broadcast_sizes(a.self.sizes, "self", a.other.sizes, "other");
  require_sizes(a.out, "out", broadcast_sizes(a.condition.sizes, "condition", branches, "self and other"));
}
ACLNN_KERNEL(SWhere) { at::where_out(out(a.out), in(a.condition), in(a.self), in(a.other)); }

ACLNN_CHECK(Clamp) { require_sizes(a.out, "out", a.self.sizes); }
ACLNN_KERNEL(Clamp) {
  at::clamp_out(out(a.out), in(a.self), scalar_or_none(a.clipValueMin), scalar_or_none(a.clipValueMax));
}
ACLNN_KERNEL(ClampMin) { at::clamp_min_out(out(a.out), in(a.self), scalar(a.clipValueMin)); }
ACLNN_KERNEL(ClampMax) { at::clamp_max_out(out(a.out), in(a.self), scalar(a.clipValueMax)); }
ACLNN_KERNEL(InplaceClampMax) { in(a.selfRef).clamp_max_(scalar(a.clipValueMax)); }
ACLNN_KERNEL(ClampTensor) {
  at::clamp_out(out(a.out), in(a.self), in_or_none(a.clipValueMin), in_or_none(a.clipValueMax));
}
ACLNN_BINARY(ClampMinTensor, clamp_min, self, clipValueMin)
ACLNN_BINARY(ClampMaxTensor, clamp_max, self, max)
ACLNN_BINARY_IN_PLACE(InplaceClampMinTensor, clamp_min, selfRef, clipValueMin)
ACLNN_BINARY_IN_PLACE(InplaceClampMaxTensor, clamp_max, selfRef, max)

}  // namespace emulator::aclnn
