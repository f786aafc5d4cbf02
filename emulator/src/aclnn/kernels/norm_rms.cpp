// The RMSNorm family without quantization. Semantics: hicann/ops-nn, norm/*/docs.
#include <algorithm>
#include <cmath>
#include <vector>

#include "aclnn/kernels/contiguous.h"
#include "aclnn/kernels/float_values.h"
#include "aclnn/kernels/norm_rows.h"
#include "aclnn_arguments.h"
#include "silicon/rules.h"

namespace emulator::aclnn {

namespace {

// One read of the inputs, one write of the outputs, five vector operations an element.
Work norm_work(const TensorView& x, int reads, int writes) {
  const double bytes = static_cast<double>(size_in_bytes(x.sizes, x.dtype));
  return {.vector_flops = 5.0 * static_cast<double>(x.numel()), .read_bytes = reads * bytes, .written_bytes = writes * bytes};
}

float* floats(const DenseOutput& output) { return output.data_as<float>(); }

void run_rms_norm(const TensorView& x, const TensorView& gamma, double epsilon, float gamma_offset, const TensorView& y,
                  const TensorView& rstd) {
  const DenseInput in_x(x), in_gamma(gamma);
  const DenseOutput out_y(y), out_rstd(rstd);
  const auto [rows, cols] = norm_rows(x, gamma);
  RmsNorm norm;
  norm.rows = rows;
  norm.cols = cols;
  norm.dtype = x.dtype;
  norm.x = in_x.data();
  norm.gamma = in_gamma.data();
  norm.gamma_dtype = gamma.dtype;
  norm.gamma_offset = gamma_offset;
  norm.epsilon = static_cast<float>(epsilon);
  norm.y = out_y.data();
  norm.rstd = floats(out_rstd);
  rms_norm(norm);
}

void check_rstd(const TensorView& rstd, const TensorView& x, const TensorView& gamma) {
  if (!rstd.defined()) return;
  require_dtype(rstd, "rstdOut", {ACL_FLOAT});
  require(rstd.numel() == norm_rows(x, gamma).rows, "rstdOut has %lld elements, but x has %lld rows.",
          static_cast<long long>(rstd.numel()), static_cast<long long>(norm_rows(x, gamma).rows));
}

}  // namespace

ACLNN_CHECK(RmsNorm) {
  require_dtype(a.x, "x", {ACL_FLOAT16, ACL_BF16, ACL_FLOAT});
  const bool mixed = chip().product != kAtlasInference && a.gamma.dtype == ACL_FLOAT;
  if (!mixed) require_same_dtype(a.gamma, "gamma", a.x, "x");
  check_norm_rows(a.x, a.gamma);
  check_like(a.yOut, "yOut", a.x, "x");
  check_rstd(a.rstdOut, a.x, a.gamma);
}
namespace {

// Rule norm_of_infinity: rows whose x holds an infinity or NaN become NaN as a whole.
std::vector<bool> rows_without_result(const TensorView& x, const TensorView& gamma) {
  const std::vector<float> values = float_values(x);
  const auto [rows, cols] = norm_rows(x, gamma);
  std::vector<bool> spoiled(rows);
  for (int64_t i = 0; i < rows * cols; ++i) {
    if (!std::isfinite(values[i])) spoiled[i / cols] = true;
  }
  return spoiled;
}

void spoil_rows(const TensorView& y, const TensorView& gamma, const std::vector<bool>& spoiled) {
  if (std::find(spoiled.begin(), spoiled.end(), true) == spoiled.end()) return;
  std::vector<float> values = float_values(y);
  const int64_t cols = norm_rows(y, gamma).cols;
  for (size_t i = 0; i < values.size(); ++i) {
    if (spoiled[i / cols]) values[i] = NAN;
  }
  store_values(y, values);
  tell(Rule::kNormOfInfinity, "aclnnRmsNorm", "x holds an infinity or NaN: such a row has no defined result");
}

}  // namespace

ACLNN_KERNEL(RmsNorm) {
  const bool spoils = enforces(Rule::kNormOfInfinity);
  const std::vector<bool> spoiled = spoils ? rows_without_result(a.x, a.gamma) : std::vector<bool>{};
  run_rms_norm(a.x, a.gamma, a.epsilon, 0.0f, a.yOut, a.rstdOut);
  if (spoils) spoil_rows(a.yOut, a.gamma, spoiled);
}
ACLNN_WORK(RmsNorm) { return norm_work(a.x, 1, 1); }

ACLNN_CHECK(GemmaRmsNorm) {
  require_dtype(a.x, "x", {ACL_FLOAT16, ACL_BF16, ACL_FLOAT});
  require_same_dtype(a.gamma, "gamma", a.x, "x");
  check_norm_rows(a.x, a.gamma);
  check_like(a.yOut, "yOut", a.x, "x");
  check_rstd(a.rstdOut, a.x, a.gamma);
}
ACLNN_KERNEL(GemmaRmsNorm) { run_rms_norm(a.x, a.gamma, a.epsilon, 1.0f, a.yOut, a.rstdOut); }
ACLNN_WORK(GemmaRmsNorm) { return norm_work(a.x, 1, 1); }

ACLNN_CHECK(AddRmsNorm) {
  check_added(a.x1, a.x2, a.gamma);
  check_like(a.yOut, "yOut", a.x1, "x1");
  check_like(a.xOut, "xOut", a.x1, "x1");
  check_rstd(a.rstdOut, a.x1, a.gamma);
}
ACLNN_KERNEL(AddRmsNorm) {
  const DenseInput x1(a.x1), x2(a.x2), gamma(a.gamma);
  const DenseOutput y(a.yOut), sum(a.xOut), rstd(a.rstdOut);
  RmsNorm norm = added_norm(a.x1, a.gamma, a.epsilon);
  norm.x = x1.data();
  norm.residual = x2.data();
  norm.gamma = gamma.data();
  norm.sum = sum.data();
  norm.y = y.data();
  norm.rstd = chip().product == kAtlasInference ? nullptr : floats(rstd);  // the 310P operator leaves it as it was
  rms_norm(norm);
}
ACLNN_WORK(AddRmsNorm) { return norm_work(a.x1, 2, 2); }

// x1 receives the normalized rows, x2 the sum.
ACLNN_CHECK(InplaceAddRmsNorm) {
  check_added(a.x1Ref, a.x2Ref, a.gamma);
  check_rstd(a.rstdOut, a.x1Ref, a.gamma);
}
ACLNN_KERNEL(InplaceAddRmsNorm) {
  const DenseInput gamma(a.gamma);
  const DenseOutput x1(a.x1Ref, true), x2(a.x2Ref, true), rstd(a.rstdOut);
  RmsNorm norm = added_norm(a.x1Ref, a.gamma, a.epsilon);
  norm.x = x1.data();
  norm.residual = x2.data();
  norm.gamma = gamma.data();
  norm.sum = x2.data();
  norm.y = x1.data();
  norm.rstd = chip().product == kAtlasInference ? nullptr : floats(rstd);
  rms_norm(norm);
}
ACLNN_WORK(InplaceAddRmsNorm) { return norm_work(a.x1Ref, 2, 2); }

// y1Out is the normalized row in float32, y2Out the same rounded to the inputs' type; the sum is exact in float32.
ACLNN_CHECK(AddRmsNormCast) {
  require_dtype(a.x1, "x1", {ACL_FLOAT16, ACL_BF16});
  check_added(a.x1, a.x2, a.gamma);
  require_dtype(a.y1Out, "y1Out", {ACL_FLOAT});
  require_sizes(a.y1Out, "y1Out", a.x1.sizes);
  check_like(a.y2Out, "y2Out", a.x1, "x1");
  check_like(a.xOut, "xOut", a.x1, "x1");
  check_rstd(a.rstdOut, a.x1, a.gamma);
}
ACLNN_KERNEL(AddRmsNormCast) {
  const DenseInput x1(a.x1), x2(a.x2), gamma(a.gamma);
  const DenseOutput wide(a.y1Out), narrow(a.y2Out), sum(a.xOut), rstd(a.rstdOut);
  RmsNorm norm = added_norm(a.x1, a.gamma, a.epsilon);
  norm.round_sum = norm.round_before_gamma = false;
  norm.x = x1.data();
  norm.residual = x2.data();
  norm.gamma = gamma.data();
  norm.sum = sum.data();
  norm.y = narrow.data();
  norm.y_float = floats(wide);
  norm.rstd = floats(rstd);
  rms_norm(norm);
}
ACLNN_WORK(AddRmsNormCast) { return norm_work(a.x1, 2, 4); }

}  // namespace emulator::aclnn
