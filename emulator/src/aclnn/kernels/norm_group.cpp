// Normalization over groups of channels and over a batch, and the fused addition before LayerNorm.
// Semantics: hicann/ops-nn, norm/{group_norm,group_norm_silu,add_layer_norm}/docs, and torch's own of the same names.
#include <cmath>
#include <vector>

#include "aclnn/kernels/float_values.h"
#include "aclnn/kernels/norm_rows.h"
#include "aclnn_arguments.h"

namespace emulator::aclnn {

namespace {

bool given(const TensorView& tensor) { return tensor.defined() && tensor.numel() > 0; }

struct GroupNormalization {
  const TensorView &x, &gamma, &beta;
  int64_t batch, channels, area, groups;
  double epsilon;
  bool silu;
  const TensorView &y, &mean, &rstd;
};

void check_factors(const GroupNormalization& n) {
  require_dtype(n.x, "x", {ACL_FLOAT16, ACL_FLOAT, ACL_BF16});
  for (const TensorView* factor : {&n.gamma, &n.beta}) {
    if (!given(*factor)) continue;
    require(factor->dtype == n.x.dtype || factor->dtype == ACL_FLOAT, "gamma and beta are %s, but must be of the type of x or float32.",
            dtype_name(factor->dtype));
    require(factor->numel() == n.channels, "gamma and beta have %lld elements, but must have %lld, a value for each channel.",
            static_cast<long long>(factor->numel()), static_cast<long long>(n.channels));
  }
}

void check_groups(const GroupNormalization& n) {
  check_factors(n);
  require(n.groups > 0 && n.channels % n.groups == 0, "group is %lld, but must divide the %lld channels.",
          static_cast<long long>(n.groups), static_cast<long long>(n.channels));
  require(n.x.numel() == n.batch * n.channels * n.area, "x has %lld elements, but N * C * HxW is %lld.",
          static_cast<long long>(n.x.numel()), static_cast<long long>(n.batch * n.channels * n.area));
  check_like(n.y, "out", n.x, "x");
  for (const TensorView* statistic : {&n.mean, &n.rstd}) {
    require(statistic->numel() == n.batch * n.groups, "meanOut and rstdOut have %lld elements, but must have N * group = %lld.",
            static_cast<long long>(statistic->numel()), static_cast<long long>(n.batch * n.groups));
  }
}

struct Statistics {
  double mean, rstd;
};

Statistics statistics(const float* values, int64_t count, double epsilon) {
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < count; ++i) sum += values[i];
  const double mean = sum / static_cast<double>(count);
  for (int64_t i = 0; i < count; ++i) squares += (values[i] - mean) * (values[i] - mean);
  return {mean, 1.0 / std::sqrt(squares / static_cast<double>(count) + epsilon)};
}

void run(const GroupNormalization& n) {
  const std::vector<float> x = float_values(n.x), gamma = float_values(n.gamma), beta = float_values(n.beta);
  std::vector<float> y(x.size()), means, rstds;
  const int64_t size = n.channels / n.groups * n.area;
  for (int64_t group = 0; group < n.batch * n.groups; ++group) {
    const Statistics s = statistics(&x[group * size], size, n.epsilon);
    means.push_back(static_cast<float>(s.mean));
    rstds.push_back(static_cast<float>(s.rstd));
    for (int64_t i = group * size; i < (group + 1) * size; ++i) {
      const int64_t channel = i / n.area % n.channels;
      auto value = static_cast<float>((x[i] - s.mean) * s.rstd);
      value = value * (gamma.empty() ? 1.0f : gamma[channel]) + (beta.empty() ? 0.0f : beta[channel]);
      y[i] = n.silu ? value / (1.0f + std::exp(-value)) : value;
    }
  }
  store_values(n.y, y);
  store_values(n.mean, means);
  store_values(n.rstd, rstds);
}

GroupNormalization groups_of(const GroupNormArgs& a) {
  return {a.self, a.gamma, a.beta, a.N, a.C, a.HxW, a.group, a.eps, false, a.out, a.meanOut, a.rstdOut};
}
GroupNormalization groups_of(const GroupNormSiluArgs& a) {
  const int64_t batch = a.self.sizes[0], channels = a.self.sizes[1];
  const int64_t area = batch * channels == 0 ? 0 : a.self.numel() / (batch * channels);
  return {a.self, a.gamma, a.beta, batch, channels, area, a.group, a.eps, true, a.out, a.meanOut, a.rstdOut};
}

}  // namespace

ACLNN_CHECK(GroupNorm) { check_groups(groups_of(a)); }
ACLNN_KERNEL(GroupNorm) { run(groups_of(a)); }

ACLNN_CHECK(GroupNormSilu) {
  require_rank(a.self, "self", 2, 8);
  check_groups(groups_of(a));
}
ACLNN_KERNEL(GroupNormSilu) { run(groups_of(a)); }

// ---- BatchNorm [batch, channels, ...] with the running statistics ----

ACLNN_CHECK(BatchNorm) {
  require_rank(a.input, "input", 2, 8);
  require_dtype(a.input, "input", {ACL_FLOAT16, ACL_FLOAT, ACL_BF16});
  if (a.training) fail(kRuntimeError, "the emulator implements inference (training = false) only.");
  check_like(a.output, "output", a.input, "input");
  const int64_t channels = a.input.sizes[1];
  require(given(a.runningMean) && given(a.runningVar), "runningMean and runningVar must not be null where training is false.");
  for (const TensorView* tensor : {&a.weight, &a.bias, &a.runningMean, &a.runningVar}) {
    if (given(*tensor)) require_sizes(*tensor, "weight, bias, runningMean and runningVar", {channels});
  }
}
ACLNN_KERNEL(BatchNorm) {
  std::vector<float> values = float_values(a.input);
  const std::vector<float> weight = float_values(a.weight), bias = float_values(a.bias), mean = float_values(a.runningMean),
                           variance = float_values(a.runningVar);
  const int64_t channels = a.input.sizes[1], batch = a.input.sizes[0];
  const int64_t area = values.empty() ? 1 : static_cast<int64_t>(values.size()) / (batch * channels);
  for (int64_t i = 0; i < static_cast<int64_t>(values.size()); ++i) {
    const int64_t channel = i / area % channels;
    const float rstd = 1.0f / std::sqrt(variance[channel] + static_cast<float>(a.eps));
    values[i] = (values[i] - mean[channel]) * rstd * (weight.empty() ? 1.0f : weight[channel]) + (bias.empty() ? 0.0f : bias[channel]);
  }
  store_values(a.output, values);
}

// ---- y = LayerNorm(x1 + x2 + bias) ----

ACLNN_CHECK(AddLayerNorm) {
  for (const TensorView* tensor : {&a.x1, &a.x2, &a.gamma, &a.beta}) {
    require_dtype(*tensor, "x1, x2, gamma and beta", {ACL_FLOAT16, ACL_FLOAT, ACL_BF16});
  }
  require_sizes(a.x2, "x2", a.x1.sizes);
  require_rank(a.gamma, "gamma", 1, 1);
  check_norm_rows(a.x1, a.gamma);
  require_sizes(a.beta, "beta", a.gamma.sizes);
  if (given(a.biasOptional)) {
    require(a.biasOptional.sizes == a.x1.sizes || a.biasOptional.sizes == a.gamma.sizes, "bias has sizes %s, but must have those of x1 or of gamma.",
            to_string(a.biasOptional.sizes).c_str());
  }
  require_sizes(a.yOut, "yOut", a.x1.sizes);
  if (a.additionalOutput) require_sizes(a.xOut, "xOut", a.x1.sizes);
}
ACLNN_KERNEL(AddLayerNorm) {
  std::vector<float> sum = float_values(a.x1);
  const std::vector<float> second = float_values(a.x2), gamma = float_values(a.gamma), beta = float_values(a.beta);
  const std::vector<float> bias = float_values(a.biasOptional);
  const auto columns = static_cast<int64_t>(gamma.size());
  std::vector<float> y(sum.size()), means, rstds;
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += second[i] + (bias.empty() ? 0.0f : bias[i % bias.size()]);
  for (int64_t row = 0; row * columns < static_cast<int64_t>(sum.size()); ++row) {
    const Statistics s = statistics(&sum[row * columns], columns, a.epsilon);
    means.push_back(static_cast<float>(s.mean));
    rstds.push_back(static_cast<float>(s.rstd));
    for (int64_t i = 0; i < columns; ++i) {
      const int64_t at = row * columns + i;
      y[at] = static_cast<float>((sum[at] - s.mean) * s.rstd) * gamma[i] + beta[i];
    }
  }
  store_values(a.yOut, y);
  if (given(a.meanOut)) store_values(a.meanOut, means);
  if (given(a.rstdOut)) store_values(a.rstdOut, rstds);
  if (a.additionalOutput) store_values(a.xOut, sum);
}

}  // namespace emulator::aclnn
