// Gated activations: one operator for the activation of one half of a tensor times the other half.
// Semantics: hicann/ops-nn, activation/*/docs.
#include <ATen/ops/gelu.h>
#include <ATen/ops/mul.h>

#include "aclnn/kernels/aten_arguments.h"
#include "aclnn/kernels/contiguous.h"
#include "math/gated.h"

namespace emulator::aclnn {

namespace {

// Checks that out is x with dimension `dim` halved; returns dim counted from the front.
int64_t check_halved(const TensorView& x, int64_t dim, const TensorView& out, const char* out_name) {
  const int64_t axis = require_dim(dim, x, "dim");
  require(x.sizes[axis] % 2 == 0, "dimension %lld of x has size %lld, but it must be even to be split in two.",
          static_cast<long long>(axis), static_cast<long long>(x.sizes[axis]));
  Dims expected = x.sizes;
  expected[axis] /= 2;
  require_sizes(out, out_name, expected);
  require_same_dtype(out, out_name, x, "x");
  return axis;
}

// x as [rows, 2, width]: everything after the split dimension belongs to the width.
int64_t gate_width(const TensorView& x, int64_t axis) {
  int64_t width = x.sizes[axis] / 2;
  for (int i = axis + 1; i < x.rank(); ++i) width *= x.sizes[i];
  return width;
}

}  // namespace

ACLNN_CHECK(SwiGlu) {
  require_dtype(a.x, "x", {ACL_FLOAT16, ACL_BF16, ACL_FLOAT});
  const int64_t axis = check_halved(a.x, a.dim, a.out, "out");
  if (chip().product != kAtlasInference) return;
  require(a.x.numel() > 0, "x is empty, which %s does not support.", chip().soc_version);
  const int64_t half_bytes = gate_width(a.x, axis) * element_bits(a.x.dtype) / 8;
  require(half_bytes % 32 == 0, "half a row takes %lld bytes, but must be a multiple of 32 (a row: of 64) on %s.",
          static_cast<long long>(half_bytes), chip().soc_version);
}
ACLNN_KERNEL(SwiGlu) {
  const DenseInput x(a.x);
  const DenseOutput out(a.out);
  const int64_t width = gate_width(a.x, require_dim(a.dim, a.x, "dim"));
  if (width == 0) return;
  swiglu({.rows = a.x.numel() / (2 * width), .width = width, .dtype = a.x.dtype, .x = x.data(), .y = out.data()});
}
ACLNN_WORK(SwiGlu) {
  return {.vector_flops = 6.0 * static_cast<double>(a.out.numel()),
          .read_bytes = static_cast<double>(size_in_bytes(a.x.sizes, a.x.dtype)),
          .written_bytes = static_cast<double>(size_in_bytes(a.out.sizes, a.out.dtype))};
}

// out = gelu(b) * a for x = [a, b], or gelu(a) * b with activateLeft; outGelu is the activated half.
ACLNN_CHECK(GeGluV3) {
  require_dtype(a.self, "self", {ACL_FLOAT16, ACL_BF16, ACL_FLOAT});
  require(a.approximate == 0 || a.approximate == 1, "approximate is %lld, but must be 0 (none) or 1 (tanh).",
          static_cast<long long>(a.approximate));
  check_halved(a.self, a.dim, a.out, "out");
  check_halved(a.self, a.dim, a.outGelu, "outGelu");
}
ACLNN_KERNEL(GeGluV3) {
  const std::vector<at::Tensor> halves = in(a.self).to(at::kFloat).chunk(2, require_dim(a.dim, a.self, "dim"));
  const at::Tensor activated = at::gelu(halves[a.activateLeft ? 0 : 1], a.approximate == 1 ? "tanh" : "none");
  store(a.outGelu, activated);
  store(a.out, at::mul(activated, halves[a.activateLeft ? 1 : 0]));
}

// out = gelu(a) * b for input = [a, b] along the last dimension.
ACLNN_CHECK(GeluMul) {
  require_dtype(a.input, "input", {ACL_FLOAT16, ACL_BF16, ACL_FLOAT});
  require(a.approximateOptional == "none" || a.approximateOptional == "tanh" || a.approximateOptional.empty(),
          "approximate is \"%s\", but must be \"none\" or \"tanh\".", a.approximateOptional.c_str());
  check_halved(a.input, -1, a.out, "out");
}
ACLNN_KERNEL(GeluMul) {
  const std::vector<at::Tensor> halves = in(a.input).to(at::kFloat).chunk(2, -1);
  store(a.out, at::mul(at::gelu(halves[0], a.approximateOptional == "tanh" ? "tanh" : "none"), halves[1]));
}

}  // namespace emulator::aclnn
