// Arithmetic of two operands: + - * / and their kin.
#include <ATen/ops/add.h>
#include <ATen/ops/addcdiv.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/atan2.h>
#include <ATen/ops/complex.h>
#include <ATen/ops/div.h>
#include <ATen/ops/floor_divide.h>
#include <ATen/ops/fmod.h>
#include <ATen/ops/gcd.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/logaddexp.h>
#include <ATen/ops/logaddexp2.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/polar.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/remainder.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/xlogy.h>

#include "aclnn/kernels/elementwise.h"
#include "silicon/rules.h"

namespace emulator::aclnn {

namespace {

// Rule int64_add. Called by the kernels: the chip accepts the launch and faults in it.
void fault_on_int64(const TensorView& out) {
  constexpr int64_t kRepeatBytes = 256;
  if (out.dtype != ACL_INT64 || out.numel() <= 1 || out.numel() * 8 % kRepeatBytes == 0) return;
  if (!enforces(Rule::kInt64Add)) return;
  refuse_by(Rule::kInt64Add, kAicoreException,
            "an int64 addition of %lld elements is an illegal instruction on the AI core: add in int32, or on the host",
            static_cast<long long>(out.numel()));
}

}  // namespace

// self + alpha * other. Boolean tensors add as "or"; everything else follows ATen.
ACLNN_CHECK(Add) { check_binary(a.self, a.other, a.out); }
ACLNN_KERNEL(Add) {
  fault_on_int64(a.out);
  at::add_out(out(a.out), in(a.self), in(a.other), scalar(a.alpha));
}
ACLNN_CHECK(Adds) { check_binary(a.self, a.other, a.out); }
ACLNN_KERNEL(Adds) {
  fault_on_int64(a.out);
  at::add_out(out(a.out), in(a.self), number(a.other), scalar(a.alpha));
}
ACLNN_CHECK(AddV3) { check_binary(a.other, a.self, a.out); }
ACLNN_KERNEL(AddV3) {
  fault_on_int64(a.out);
  at::add_out(out(a.out), number(a.self), in(a.other), scalar(a.alpha));
}
ACLNN_CHECK(InplaceAdd) { check_binary(a.selfRef, a.other, a.selfRef); }
ACLNN_KERNEL(InplaceAdd) {
  fault_on_int64(a.selfRef);
  in(a.selfRef).add_(in(a.other), scalar(a.alpha));
}
ACLNN_CHECK(InplaceAdds) { check_binary(a.selfRef, a.other, a.selfRef); }
ACLNN_KERNEL(InplaceAdds) {
  fault_on_int64(a.selfRef);
  in(a.selfRef).add_(number(a.other), scalar(a.alpha));
}
ACLNN_CHECK(AddRelu) { check_binary(a.self, a.other, a.out); }
ACLNN_KERNEL(AddRelu) { store(a.out, at::add(in(a.self), in(a.other), scalar(a.alpha)).relu_()); }
ACLNN_CHECK(InplaceAddRelu) { check_binary(a.selfRef, a.other, a.selfRef); }
ACLNN_KERNEL(InplaceAddRelu) { in(a.selfRef).add_(in(a.other), scalar(a.alpha)).relu_(); }

ACLNN_CHECK(Sub) { check_binary(a.self, a.other, a.out); }
ACLNN_KERNEL(Sub) { at::sub_out(out(a.out), in(a.self), in(a.other), scalar(a.alpha)); }
ACLNN_CHECK(Subs) { check_binary(a.self, a.other, a.out); }
ACLNN_KERNEL(Subs) { at::sub_out(out(a.out), in(a.self), number(a.other), scalar(a.alpha)); }
ACLNN_CHECK(InplaceSub) { check_binary(a.selfRef, a.other, a.selfRef); }
ACLNN_KERNEL(InplaceSub) { in(a.selfRef).sub_(in(a.other), scalar(a.alpha)); }
ACLNN_CHECK(InplaceSubs) { check_binary(a.selfRef, a.other, a.selfRef); }
ACLNN_KERNEL(InplaceSubs) { in(a.selfRef).sub_(number(a.other), scalar(a.alpha)); }
ACLNN_CHECK(Rsub) { check_binary(a.self, a.other, a.out); }
ACLNN_KERNEL(Rsub) { at::sub_out(out(a.out), in(a.other), in(a.self), scalar(a.alpha)); }
ACLNN_CHECK(Rsubs) { check_binary(a.self, a.other, a.out); }
ACLNN_KERNEL(Rsubs) { at::sub_out(out(a.out), number(a.other), in(a.self), scalar(a.alpha)); }

ACLNN_BINARY(Mul, mul, self, other)
ACLNN_BINARY_SCALAR(Muls, mul, self, other)
ACLNN_BINARY_IN_PLACE(InplaceMul, mul, selfRef, other)
ACLNN_BINARY_SCALAR_IN_PLACE(InplaceMuls, mul, selfRef, other)
ACLNN_BINARY(Div, div, self, other)
ACLNN_BINARY_SCALAR(Divs, div, self, other)
ACLNN_BINARY_IN_PLACE(InplaceDiv, div, selfRef, other)
ACLNN_BINARY_SCALAR_IN_PLACE(InplaceDivs, div, selfRef, other)
ACLNN_BINARY(FloorDivide, floor_divide, self, other)
ACLNN_BINARY_SCALAR(FloorDivides, floor_divide, self, other)
ACLNN_BINARY_IN_PLACE(InplaceFloorDivide, floor_divide, selfRef, other)
ACLNN_BINARY_SCALAR_IN_PLACE(InplaceFloorDivides, floor_divide, selfRef, other)

namespace {

// The `mode` of DivMod: 0 true division, 1 towards zero, 2 towards minus infinity.
std::optional<std::string_view> rounding(int32_t mode) {
  if (mode == 1) return "trunc";
  if (mode == 2) return "floor";
  return std::nullopt;
}

void check_rounding(int32_t mode) { require(mode >= 0 && mode <= 2, "mode is %d, but must be 0, 1 or 2.", mode); }

}  // namespace

ACLNN_CHECK(DivMod) { check_rounding(a.mode), check_binary(a.self, a.other, a.out); }
ACLNN_KERNEL(DivMod) { at::div_out(out(a.out), in(a.self), in(a.other), rounding(a.mode)); }
ACLNN_CHECK(DivMods) { check_rounding(a.mode), check_binary(a.self, a.other, a.out); }
ACLNN_KERNEL(DivMods) { at::div_out(out(a.out), in(a.self), number(a.other), rounding(a.mode)); }
ACLNN_CHECK(InplaceDivMod) { check_rounding(a.mode), check_binary(a.selfRef, a.other, a.selfRef); }
ACLNN_KERNEL(InplaceDivMod) { in(a.selfRef).div_(in(a.other), rounding(a.mode)); }
ACLNN_CHECK(InplaceDivMods) { check_rounding(a.mode), check_binary(a.selfRef, a.other, a.selfRef); }
ACLNN_KERNEL(InplaceDivMods) { in(a.selfRef).div_(number(a.other), rounding(a.mode)); }

ACLNN_BINARY(RemainderTensorTensor, remainder, self, other)
ACLNN_BINARY_SCALAR(RemainderTensorScalar, remainder, self, other)
ACLNN_CHECK(RemainderScalarTensor) { check_binary(a.other, a.self, a.out); }
ACLNN_KERNEL(RemainderScalarTensor) { at::remainder_out(out(a.out), number(a.self), in(a.other)); }
ACLNN_BINARY_IN_PLACE(InplaceRemainderTensorTensor, remainder, selfRef, other)
ACLNN_BINARY_SCALAR_IN_PLACE(InplaceRemainderTensorScalar, remainder, selfRef, other)
ACLNN_BINARY(FmodTensor, fmod, self, other)
ACLNN_BINARY_SCALAR(FmodScalar, fmod, self, other)
ACLNN_BINARY_IN_PLACE(InplaceFmodTensor, fmod, selfRef, other)
ACLNN_BINARY_SCALAR_IN_PLACE(InplaceFmodScalar, fmod, selfRef, other)

ACLNN_BINARY(PowTensorTensor, pow, self, exponent)
ACLNN_CHECK(PowTensorScalar) { check_binary(a.self, a.exponent, a.out); }
ACLNN_KERNEL(PowTensorScalar) { at::pow_out(out(a.out), in(a.self), scalar(a.exponent)); }
ACLNN_CHECK(PowScalarTensor) { check_binary(a.exponent, a.self, a.out); }
ACLNN_KERNEL(PowScalarTensor) { at::pow_out(out(a.out), scalar(a.self), in(a.exponent)); }
ACLNN_BINARY_IN_PLACE(InplacePowTensorTensor, pow, self, exponent)
ACLNN_CHECK(InplacePowTensorScalar) { check_binary(a.self, a.exponent, a.self); }
ACLNN_KERNEL(InplacePowTensorScalar) { in(a.self).pow_(scalar(a.exponent)); }

ACLNN_BINARY(Maximum, maximum, self, other)
ACLNN_BINARY(Minimum, minimum, self, other)
ACLNN_BINARY(Atan2, atan2, self, other)
ACLNN_BINARY_IN_PLACE(InplaceAtan2, atan2, selfRef, other)
ACLNN_BINARY(LogAddExp, logaddexp, self, other)
ACLNN_BINARY(LogAddExp2, logaddexp2, self, other)
ACLNN_BINARY(Gcd, gcd, self, other)
ACLNN_BINARY(XLogYTensor, xlogy, self, other)
ACLNN_BINARY_SCALAR(XLogYScalarOther, xlogy, self, other)
ACLNN_BINARY_SCALAR_IN_PLACE(InplaceXLogYScalarOther, xlogy, selfRef, other)
ACLNN_CHECK(XLogYScalarSelf) { check_binary(a.other, a.self, a.out); }
ACLNN_KERNEL(XLogYScalarSelf) { at::xlogy_out(out(a.out), number(a.self), in(a.other)); }
ACLNN_KERNEL(Complex) { at::complex_out(out(a.out), in(a.real), in(a.imag)); }
ACLNN_KERNEL(Polar) { at::polar_out(out(a.out), in(a.input), in(a.angle)); }

ACLNN_KERNEL(Addcmul) { at::addcmul_out(out(a.out), in(a.self), in(a.tensor1), in(a.tensor2), scalar(a.value)); }
ACLNN_KERNEL(Addcdiv) { at::addcdiv_out(out(a.out), in(a.self), in(a.tensor1), in(a.tensor2), scalar(a.value)); }
ACLNN_KERNEL(InplaceAddcmul) { in(a.selfRef).addcmul_(in(a.tensor1), in(a.tensor2), scalar(a.value)); }
ACLNN_KERNEL(InplaceAddcdiv) { in(a.selfRef).addcdiv_(in(a.tensor1), in(a.tensor2), scalar(a.value)); }
ACLNN_KERNEL(Lerp) { at::lerp_out(out(a.out), in(a.self), in(a.end), in(a.weight)); }
ACLNN_KERNEL(Lerps) { at::lerp_out(out(a.out), in(a.self), in(a.end), scalar(a.weight)); }
ACLNN_KERNEL(InplaceLerp) { in(a.selfRef).lerp_(in(a.end), in(a.weight)); }
ACLNN_KERNEL(InplaceLerps) { in(a.selfRef).lerp_(in(a.end), scalar(a.weight)); }

}  // namespace emulator::aclnn
