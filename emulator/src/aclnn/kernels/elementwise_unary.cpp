// Functions of one operand.
#include <ATen/ops/abs.h>
#include <ATen/ops/acos.h>
#include <ATen/ops/acosh.h>
#include <ATen/ops/angle.h>
#include <ATen/ops/asin.h>
#include <ATen/ops/asinh.h>
#include <ATen/ops/atan.h>
#include <ATen/ops/atanh.h>
#include <ATen/ops/bitwise_not.h>
#include <ATen/ops/ceil.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/cosh.h>
#include <ATen/ops/erf.h>
#include <ATen/ops/erfc.h>
#include <ATen/ops/erfinv.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/exp2.h>
#include <ATen/ops/expm1.h>
#include <ATen/ops/floor.h>
#include <ATen/ops/frac.h>
#include <ATen/ops/log.h>
#include <ATen/ops/log10.h>
#include <ATen/ops/log1p.h>
#include <ATen/ops/log2.h>
#include <ATen/ops/logical_not.h>
#include <ATen/ops/logit.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/neg.h>
#include <ATen/ops/reciprocal.h>
#include <ATen/ops/round.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/sgn.h>
#include <ATen/ops/signbit.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/sinc.h>
#include <ATen/ops/sinh.h>
#include <ATen/ops/sqrt.h>
#include <ATen/ops/tan.h>
#include <ATen/ops/trunc.h>

#include "aclnn/kernels/elementwise.h"

namespace emulator::aclnn {

ACLNN_UNARY(Abs, abs, self)
ACLNN_UNARY(Acos, acos, input)
ACLNN_UNARY_IN_PLACE(InplaceAcos, acos, inputRef)
ACLNN_UNARY(Acosh, acosh, self)
ACLNN_UNARY_IN_PLACE(InplaceAcosh, acosh, selfRef)
ACLNN_UNARY(AngleV2, angle, x)
ACLNN_UNARY(Asin, asin, self)
ACLNN_UNARY_IN_PLACE(InplaceAsin, asin, selfRef)
ACLNN_UNARY(Asinh, asinh, input)
ACLNN_UNARY_IN_PLACE(InplaceAsinh, asinh, inputRef)
ACLNN_UNARY(Atan, atan, input)
ACLNN_UNARY_IN_PLACE(InplaceAtan, atan, inputRef)
ACLNN_UNARY(Atanh, atanh, input)
ACLNN_UNARY_IN_PLACE(InplaceAtanh, atanh, inputRef)
ACLNN_UNARY(BitwiseNot, bitwise_not, self)
ACLNN_UNARY(Ceil, ceil, self)
ACLNN_UNARY_IN_PLACE(InplaceCeil, ceil, selfRef)
ACLNN_UNARY(Cos, cos, input)
ACLNN_UNARY_IN_PLACE(InplaceCos, cos, inputRef)
ACLNN_UNARY(Cosh, cosh, self)
ACLNN_UNARY_IN_PLACE(InplaceCosh, cosh, selfRef)
ACLNN_UNARY(Erf, erf, self)
ACLNN_UNARY_IN_PLACE(InplaceErf, erf, selfRef)
ACLNN_UNARY(Erfc, erfc, self)
ACLNN_UNARY_IN_PLACE(InplaceErfc, erfc, selfRef)
ACLNN_UNARY(Erfinv, erfinv, self)
ACLNN_UNARY_IN_PLACE(InplaceErfinv, erfinv, selfRef)
ACLNN_UNARY(Exp, exp, self)
ACLNN_UNARY_IN_PLACE(InplaceExp, exp, selfRef)
ACLNN_UNARY(Exp2, exp2, self)
ACLNN_UNARY_IN_PLACE(InplaceExp2, exp2, selfRef)
ACLNN_UNARY(Expm1, expm1, self)
ACLNN_UNARY_IN_PLACE(InplaceExpm1, expm1, selfRef)
ACLNN_UNARY(Floor, floor, self)
ACLNN_UNARY_IN_PLACE(InplaceFloor, floor, selfRef)
ACLNN_UNARY(Frac, frac, input)
ACLNN_UNARY_IN_PLACE(InplaceFrac, frac, inputRef)
ACLNN_UNARY(Log, log, self)
ACLNN_UNARY_IN_PLACE(InplaceLog, log, selfRef)
ACLNN_UNARY(Log10, log10, self)
ACLNN_UNARY_IN_PLACE(InplaceLog10, log10, selfRef)
ACLNN_UNARY(Log1p, log1p, self)
ACLNN_UNARY_IN_PLACE(InplaceLog1p, log1p, selfRef)
ACLNN_UNARY(Log2, log2, self)
ACLNN_UNARY_IN_PLACE(InplaceLog2, log2, selfRef)
ACLNN_UNARY(Neg, neg, self)
ACLNN_UNARY(Reciprocal, reciprocal, self)
ACLNN_UNARY_IN_PLACE(InplaceReciprocal, reciprocal, selfRef)
ACLNN_UNARY(Round, round, self)
ACLNN_UNARY(Rsqrt, rsqrt, self)
ACLNN_UNARY_IN_PLACE(InplaceRsqrt, rsqrt, selfRef)
ACLNN_UNARY(Sin, sin, self)
ACLNN_UNARY_IN_PLACE(InplaceSin, sin, selfRef)
ACLNN_UNARY(Sinc, sinc, self)
ACLNN_UNARY_IN_PLACE(InplaceSinc, sinc, selfRef)
ACLNN_UNARY(Sinh, sinh, self)
ACLNN_UNARY_IN_PLACE(InplaceSinh, sinh, selfRef)
ACLNN_UNARY(Sqrt, sqrt, self)
ACLNN_UNARY_IN_PLACE(InplaceSqrt, sqrt, self)
ACLNN_UNARY(Tan, tan, self)
ACLNN_UNARY_IN_PLACE(InplaceTan, tan, selfRef)
ACLNN_UNARY(Trunc, trunc, self)

ACLNN_KERNEL(Sign) { at::sgn_out(out(a.result), in(a.self)); }  // of a complex number: on the unit circle
ACLNN_KERNEL(Signbit) { at::signbit_out(out(a.out), in(a.self)); }
ACLNN_KERNEL(LogicalNot) { at::logical_not_out(out(a.out), in(a.self)); }
ACLNN_UNARY_IN_PLACE(InplaceLogicalNot, logical_not, selfRef)
ACLNN_KERNEL(RoundDecimals) { at::round_out(out(a.out), in(a.self), a.decimals); }
ACLNN_KERNEL(InplaceRoundDecimals) { in(a.selfRef).round_(a.decimals); }
ACLNN_KERNEL(NanToNum) { at::nan_to_num_out(out(a.out), in(a.self), a.nan, a.posinf, a.neginf); }
ACLNN_KERNEL(InplaceNanToNum) { in(a.selfRef).nan_to_num_(a.nan, a.posinf, a.neginf); }
// CANN marks "no clamping" with -1, PyTorch with an absent value.
ACLNN_KERNEL(Logit) {
  at::logit_out(out(a.out), in(a.input), a.eps < 0 ? std::nullopt : std::optional<double>(a.eps));
}

}  // namespace emulator::aclnn
