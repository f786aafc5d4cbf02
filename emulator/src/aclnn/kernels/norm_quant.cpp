// The RMSNorm family that ends in int8. Semantics and limits by product: hicann/ops-nn, norm/{add_rms_norm_quant,
// add_rms_norm_dynamic_quant,rms_norm_quant}/docs. int4 and fp8 results are refused as not implemented.
#include <vector>

#include "aclnn/kernels/contiguous.h"
#include "aclnn/kernels/float_values.h"
#include "aclnn/kernels/norm_rows.h"
#include "aclnn/kernels/quantize_row.h"
#include "aclnn_arguments.h"
#include "math/convert.h"

namespace emulator::aclnn {

namespace {

bool given(const TensorView& tensor) { return tensor.defined() && tensor.numel() > 0; }

Work quant_norm_work(const TensorView& x, int inputs) {
  const double bytes = static_cast<double>(size_in_bytes(x.sizes, x.dtype)), count = static_cast<double>(x.numel());
  return {.vector_flops = 8.0 * count, .read_bytes = inputs * bytes, .written_bytes = (inputs - 1) * bytes + count};
}

// The normalized rows before rounding; adds x2 and writes the sum where they are given.
std::vector<float> normalized(const TensorView& x1, const TensorView& x2, const TensorView& gamma, const TensorView& beta,
                              double epsilon, const TensorView& sum) {
  const DenseInput first(x1), second(x2), factors(gamma), bias(beta);
  const DenseOutput total(sum);
  std::vector<float> rows(x1.numel());
  RmsNorm norm = added_norm(x1, gamma, epsilon);
  norm.x = first.data();
  norm.residual = second.data();
  norm.gamma = factors.data();
  norm.bias = bias.data();
  norm.sum = total.data();
  norm.y_float = rows.data();
  rms_norm(norm);
  return rows;
}

// y = round(row / scale + zero point), or row * scale.
void quantize(const std::vector<float>& rows, const TensorView& scale, const TensorView& zero_point, bool divides, const TensorView& y) {
  const std::vector<float> factors = float_values(scale), offsets = float_values(zero_point);
  std::vector<float> moved(rows);
  for (size_t i = 0; i < moved.size(); ++i) {
    const float factor = factors[i % factors.size()];
    moved[i] = (divides ? moved[i] / factor : moved[i] * factor) + (offsets.empty() ? 0.0f : offsets[i % offsets.size()]);
  }
  store_values(y, moved);
}

struct StaticQuantization {
  const TensorView &x1, &x2, &gamma, &scales1, &scales2, &zero_points1, &zero_points2;
  bool divides;
  const TensorView &y1, &y2, &sum;
};

void check_parameters(const StaticQuantization& q) {
  const bool is_310p = chip().product == kAtlasInference;
  for (const TensorView* scale : {&q.scales1, &q.scales2}) {
    if (!given(*scale)) continue;
    if (is_310p) {
      require_dtype(*scale, "scales", {ACL_FLOAT});
    } else {
      require_dtype(*scale, "scales", {ACL_FLOAT, ACL_BF16});
    }
    require(scale->numel() == q.gamma.numel(), "scales have %lld elements, but must have those of gamma, %lld.",
            static_cast<long long>(scale->numel()), static_cast<long long>(q.gamma.numel()));
  }
  for (const TensorView* point : {&q.zero_points1, &q.zero_points2}) {
    if (!given(*point)) continue;
    if (is_310p) {
      require_dtype(*point, "zeroPoints", {ACL_INT32});
    } else {
      require_dtype(*point, "zeroPoints", {ACL_INT32, ACL_BF16});
    }
    require(point->numel() == q.gamma.numel(), "zeroPoints have %lld elements, but must have those of gamma, %lld.",
            static_cast<long long>(point->numel()), static_cast<long long>(q.gamma.numel()));
  }
}

void check_static(const StaticQuantization& q) {
  check_added(q.x1, q.x2, q.gamma);
  if (chip().product == kAtlasInference) {
    require_dtype(q.x1, "x1", {ACL_FLOAT16});
  } else if (chip().product != kA5) {
    require_dtype(q.x1, "x1", {ACL_FLOAT16, ACL_BF16});
  }
  require(q.divides || chip().product == kA5, "divMode is false, but must be true on %s.", chip().soc_version);
  require(given(q.scales1), "scales1 must not be null.");
  check_parameters(q);
  require_dtype(q.y1, "y1Out", {ACL_INT8});
  require_sizes(q.y1, "y1Out", q.x1.sizes);
  check_like(q.sum, "xOut", q.x1, "x1");
  if (!given(q.scales2)) return;
  require_dtype(q.y2, "y2Out", {ACL_INT8});
  require_sizes(q.y2, "y2Out", q.x1.sizes);
}

void run_static(const StaticQuantization& q, const TensorView& beta, double epsilon, const TensorView& norm) {
  const std::vector<float> rows = normalized(q.x1, q.x2, q.gamma, beta, epsilon, q.sum);
  quantize(rows, q.scales1, q.zero_points1, q.divides, q.y1);
  if (given(q.scales2)) quantize(rows, q.scales2, q.zero_points2, q.divides, q.y2);
  if (given(norm)) store_values(norm, rows);
}

StaticQuantization static_of(const AddRmsNormQuantArgs& a) {
  return {a.x1, a.x2, a.gamma, a.scales1, a.scales2Optional, a.zeroPoints1Optional, a.zeroPoints2Optional, a.divMode, a.y1Out,
          a.y2Out, a.xOut};
}
StaticQuantization static_of(const AddRmsNormQuantV2Args& a) {
  return {a.x1, a.x2, a.gamma, a.scales1, a.scales2Optional, a.zeroPoints1Optional, a.zeroPoints2Optional, a.divMode, a.y1Out,
          a.y2Out, a.xOut};
}

}  // namespace

ACLNN_CHECK(AddRmsNormQuant) { check_static(static_of(a)); }
ACLNN_KERNEL(AddRmsNormQuant) { run_static(static_of(a), TensorView{}, a.epsilon, TensorView{}); }
ACLNN_WORK(AddRmsNormQuant) { return quant_norm_work(a.x1, 2); }

ACLNN_CHECK(AddRmsNormQuantV2) {
  check_static(static_of(a));
  if (a.betaOptional.defined()) check_like(a.betaOptional, "beta", a.gamma, "gamma");
  if (given(a.rmsNormOut)) check_like(a.rmsNormOut, "rmsNormOut", a.x1, "x1");
}
ACLNN_KERNEL(AddRmsNormQuantV2) { run_static(static_of(a), a.betaOptional, a.epsilon, a.rmsNormOut); }
ACLNN_WORK(AddRmsNormQuantV2) { return quant_norm_work(a.x1, 2); }

ACLNN_CHECK(RmsNormQuant) {
  if (chip().product == kAtlasInference) {
    require_dtype(a.x, "x", {ACL_FLOAT16});
  } else {
    require_dtype(a.x, "x", {ACL_FLOAT16, ACL_BF16});
  }
  for (const TensorView* tensor : {&a.gamma, &a.beta, &a.scale}) require_same_dtype(*tensor, "gamma, beta and scale", a.x, "x");
  check_norm_rows(a.x, a.gamma);
  require_sizes(a.beta, "beta", a.gamma.sizes);
  require(a.scale.numel() == 1 && a.offset.numel() == 1, "scale and offset must have one element each.");
  require_dtype(a.offset, "offset", {ACL_INT8});
  require_dtype(a.y, "y", {ACL_INT8});
  require_sizes(a.y, "y", a.x.sizes);
}
ACLNN_KERNEL(RmsNormQuant) {
  const std::vector<float> rows = normalized(a.x, TensorView{}, a.gamma, a.beta, a.epsilon, TensorView{});
  quantize(rows, a.scale, a.offset, true, a.y);
}
ACLNN_WORK(RmsNormQuant) { return quant_norm_work(a.x, 1); }

// ---- a scale for each row ----

namespace {

// Whether the first and the second quantized output are asked for.
bool wants(const AddRmsNormDynamicQuantV2Args& a, size_t which) {
  if (a.outputMask.present()) return a.outputMask[which] != 0;
  return which == 0 || (a.smoothScale1Optional.defined() && a.smoothScale2Optional.defined());
}

void quantize_rows(const std::vector<float>& rows, int64_t columns, const TensorView& smooth, const TensorView& y, const TensorView& scale) {
  const std::vector<float> factors = float_values(smooth);
  std::vector<float> scales(rows.size() / columns);
  const DenseOutput out(y);
  for (size_t row = 0; row < scales.size(); ++row) {
    scales[row] = quantize_row(&rows[row * columns], factors.empty() ? nullptr : factors.data(), columns,
                               out.data_as<int8_t>() + row * columns);
  }
  store_values(scale, scales);
}

}  // namespace

ACLNN_CHECK(AddRmsNormDynamicQuantV2) {
  require_dtype(a.x1, "x1", {ACL_FLOAT16, ACL_BF16});
  check_added(a.x1, a.x2, a.gamma);
  require_rank(a.x1, "x1", 2, 8);
  require_rank(a.gamma, "gamma", 1, 1);
  require(!a.outputMask.present() || a.outputMask.size() == 2, "outputMask has %zu elements, but must have 2.", a.outputMask.size());
  require(wants(a, 0) || wants(a, 1), "outputMask must not be false twice.");
  for (const TensorView* factor : {&a.smoothScale1Optional, &a.smoothScale2Optional, &a.betaOptional}) {
    check_like(*factor, "smoothScale1, smoothScale2 and beta", a.gamma, "gamma");
  }
  if (given(a.xOut)) check_like(a.xOut, "xOut", a.x1, "x1");
  const Dims rows(a.x1.sizes.data(), a.x1.rank() - 1);
  const std::pair<const TensorView*, const TensorView*> outputs[] = {{&a.y1Out, &a.scale1Out}, {&a.y2Out, &a.scale2Out}};
  for (size_t which = 0; which < 2; ++which) {
    if (!wants(a, which)) continue;
    require_dtype(*outputs[which].first, "y1Out and y2Out", {ACL_INT8});
    require_sizes(*outputs[which].first, "y1Out and y2Out", a.x1.sizes);
    require_dtype(*outputs[which].second, "scale1Out and scale2Out", {ACL_FLOAT});
    require_sizes(*outputs[which].second, "scale1Out and scale2Out", rows);
  }
}
ACLNN_KERNEL(AddRmsNormDynamicQuantV2) {
  const std::vector<float> rows = normalized(a.x1, a.x2, a.gamma, a.betaOptional, a.epsilon, a.xOut);
  const int64_t columns = a.gamma.numel();
  if (wants(a, 0)) quantize_rows(rows, columns, a.smoothScale1Optional, a.y1Out, a.scale1Out);
  if (wants(a, 1)) quantize_rows(rows, columns, a.smoothScale2Optional, a.y2Out, a.scale2Out);
}
ACLNN_WORK(AddRmsNormDynamicQuantV2) { return quant_norm_work(a.x1, 2); }

}  // namespace emulator::aclnn
