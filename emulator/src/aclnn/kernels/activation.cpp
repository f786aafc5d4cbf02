// Activations of one tensor, softmax included. The fused ones (SwiGLU, quantizing) are in activation_fused.cpp.
#include <ATen/ops/_log_softmax.h>
#include <ATen/ops/_prelu_kernel.h>
#include <ATen/ops/_softmax.h>
#include <ATen/ops/celu.h>
#include <ATen/ops/elu.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/glu.h>
#include <ATen/ops/hardshrink.h>
#include <ATen/ops/hardsigmoid.h>
#include <ATen/ops/hardswish.h>
#include <ATen/ops/hardtanh.h>
#include <ATen/ops/leaky_relu.h>
#include <ATen/ops/log_sigmoid.h>
#include <ATen/ops/log_sigmoid_forward.h>
#include <ATen/ops/mish.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softplus.h>
#include <ATen/ops/softshrink.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/threshold.h>

#include "aclnn/kernels/elementwise.h"

namespace emulator::aclnn {

ACLNN_UNARY(Sigmoid, sigmoid, self)
ACLNN_UNARY_IN_PLACE(InplaceSigmoid, sigmoid, selfRef)
ACLNN_UNARY(Tanh, tanh, self)
ACLNN_UNARY_IN_PLACE(InplaceTanh, tanh, selfRef)
ACLNN_UNARY(Relu, relu, self)
ACLNN_KERNEL(InplaceRelu) { in(a.selfRef).relu_(); }
ACLNN_UNARY(Silu, silu, self)
// CANN defines aclnnGelu by the tanh approximation. torch_npu calls it for approximate="none" too, unless
// TORCH_NPU_USE_COMPATIBLE_IMPL=1: on NPUs, plain F.gelu is then the approximation.
ACLNN_CHECK(Gelu) { check_unary(a.self, a.out); }
ACLNN_KERNEL(Gelu) { at::gelu_out(out(a.out), in(a.self), "tanh"); }
ACLNN_UNARY(Hardsigmoid, hardsigmoid, self)
ACLNN_UNARY_IN_PLACE(InplaceHardsigmoid, hardsigmoid, self)
ACLNN_UNARY(Hardswish, hardswish, self)
ACLNN_UNARY_IN_PLACE(InplaceHardswish, hardswish, self)
ACLNN_UNARY(Mish, mish, self)
ACLNN_UNARY_IN_PLACE(InplaceMish, mish, selfRef)
ACLNN_UNARY(LogSigmoid, log_sigmoid, self)

// approximate: 0 the error function, 1 its tanh approximation.
ACLNN_CHECK(GeluV2) {
  require(a.approximate == 0 || a.approximate == 1, "approximate is %lld, but must be 0 (none) or 1 (tanh).",
          static_cast<long long>(a.approximate));
  check_unary(a.x, a.y);
}
ACLNN_KERNEL(GeluV2) { at::gelu_out(out(a.y), in(a.x), a.approximate == 1 ? "tanh" : "none"); }
// x * sigmoid(1.702 x), in the form that the document gives: it does not overflow for large negative x.
ACLNN_CHECK(FastGelu) { check_unary(a.self, a.out); }
ACLNN_KERNEL(FastGelu) {
  const at::Tensor x = in(a.self).to(at::kFloat);
  store(a.out, at::mul(x, at::sigmoid(at::mul(x, 1.702))));
}

ACLNN_KERNEL(Celu) { at::celu_out(out(a.out), in(a.self), scalar(a.alpha)); }
ACLNN_KERNEL(InplaceCelu) { at::celu_(out(a.selfRef), scalar(a.alpha)); }
ACLNN_KERNEL(Elu) { at::elu_out(out(a.out), in(a.self), scalar(a.alpha), scalar(a.scale), scalar(a.inputScale)); }
ACLNN_KERNEL(InplaceElu) { at::elu_(out(a.selfRef), scalar(a.alpha), scalar(a.scale), scalar(a.inputScale)); }
ACLNN_KERNEL(LeakyRelu) { at::leaky_relu_out(out(a.out), in(a.self), scalar(a.negativeSlope)); }
ACLNN_KERNEL(InplaceLeakyRelu) { at::leaky_relu_(out(a.selfRef), scalar(a.negativeSlope)); }
ACLNN_KERNEL(Hardtanh) { at::hardtanh_out(out(a.out), in(a.self), scalar(a.clipValueMin), scalar(a.clipValueMax)); }
ACLNN_KERNEL(InplaceHardtanh) { at::hardtanh_(out(a.selfRef), scalar(a.clipValueMin), scalar(a.clipValueMax)); }
ACLNN_KERNEL(Hardshrink) { at::hardshrink_out(out(a.out), in(a.self), scalar(a.lambd)); }
ACLNN_KERNEL(Softshrink) { at::softshrink_out(out(a.out), in(a.self), scalar(a.lambd)); }
ACLNN_KERNEL(Softplus) { at::softplus_out(out(a.out), in(a.self), scalar(a.beta), scalar(a.threshold)); }
ACLNN_KERNEL(Threshold) { at::threshold_out(out(a.out), in(a.self), scalar(a.threshold), scalar(a.value)); }
ACLNN_KERNEL(InplaceThreshold) { at::threshold_(out(a.selfRef), scalar(a.threshold), scalar(a.value)); }
// A weight of one dimension belongs to the channels; torch_npu also sends it broadcast already, [1, C, 1, 1].
ACLNN_KERNEL(Prelu) {
  at::Tensor weight = in(a.weight);
  if (weight.dim() == 1 && a.self.rank() > 1) {
    at::DimVector sizes(a.self.rank(), 1);
    sizes[1] = weight.numel();
    weight = weight.reshape(sizes);
  }
  store(a.out, at::_prelu_kernel(in(a.self), weight));
}
// `buffer` serves the backward pass only; CPU and NPU fill it differently, so it is left as it is.
ACLNN_KERNEL(LogSigmoidForward) { at::log_sigmoid_out(out(a.out), in(a.self)); }

ACLNN_CHECK(Glu) {
  const int64_t dim = require_dim(a.dim, a.self, "dim");
  require(a.self.sizes[dim] % 2 == 0, "self has %lld elements in dimension %lld, which must be even to be halved.",
          static_cast<long long>(a.self.sizes[dim]), static_cast<long long>(dim));
  Dims halved = a.self.sizes;
  halved[static_cast<int>(dim)] /= 2;
  require_sizes(a.out, "out", halved);
}
ACLNN_KERNEL(Glu) { at::glu_out(out(a.out), in(a.self), a.dim); }

namespace {

void check_softmax(const TensorView& self, int64_t dim, const TensorView& out) {
  require_dim(dim, self, "dim");
  require_sizes(out, "out", self.sizes);
  require(is_floating(self.dtype), "self is %s, but must be of a floating-point type.", dtype_name(self.dtype));
}

// The output's type decides the type that the sum is taken in: fp16 in, fp32 out is softmax(x, dtype=torch.float32).
at::Tensor in_type_of(const TensorView& out, const TensorView& self) { return in(self).to(aten_dtype(out.dtype)); }

}  // namespace

ACLNN_CHECK(Softmax) { check_softmax(a.self, a.dim, a.out); }
ACLNN_KERNEL(Softmax) { at::_softmax_out(out(a.out), in_type_of(a.out, a.self), a.dim, false); }
ACLNN_CHECK(LogSoftmax) { check_softmax(a.self, a.dim, a.out); }
ACLNN_KERNEL(LogSoftmax) { at::_log_softmax_out(out(a.out), in_type_of(a.out, a.self), a.dim, false); }

}  // namespace emulator::aclnn
