// Random tensors, a pure function of the seed and offset that torch_npu's generator hands to the operator.
//
// The bits are Philox's, as on hardware; their assignment to elements is this emulator's own (row-major, one word or
// pair of words an element), so samples are reproducible here but are not those of a chip.
#include <ATen/Dispatch.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/div.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/topk.h>

#include <cmath>
#include <numbers>

#include "aclnn/kernels/aten_arguments.h"
#include "aclnn/philox.h"
#include "silicon/rules.h"

namespace emulator::aclnn {

namespace {

// In graphs, seed and offset lie in device memory, and `offset` counts the calls within the graph.
Philox philox(const TensorView& seed, const TensorView& offset_base, uint64_t offset) {
  return {static_cast<uint64_t>(*seed.data_as<int64_t>()),
          static_cast<uint64_t>(*offset_base.data_as<int64_t>()) + offset};
}

void check_state(const TensorView& seed, const TensorView& offset) {
  require_dtype(seed, "seedTensor", {ACL_INT64, ACL_UINT64});
  require_dtype(offset, "offsetTensor", {ACL_INT64, ACL_UINT64});
  require(seed.numel() == 1 && offset.numel() == 1, "seedTensor and offsetTensor must have one element each.");
}

int significant_bits(aclDataType dtype) {
  switch (dtype) {
    case ACL_FLOAT16: return 11;
    case ACL_BF16: return 8;
    case ACL_DOUBLE: return 53;
    default: return 24;
  }
}

// sample(i) gives the i-th element in row-major order, as a double or an int64_t.
template <typename Sample>
void fill(const TensorView& out, Sample sample) {
  using Value = decltype(sample(uint64_t{}));
  constexpr auto type = std::is_same_v<Value, double> ? at::kDouble : at::kLong;
  at::Tensor values = at::empty(at::IntArrayRef(out.sizes.data(), out.sizes.size()), type);
  auto* data = values.mutable_data_ptr<Value>();
  const int64_t count = values.numel();
  for (int64_t i = 0; i < count; ++i) data[i] = sample(static_cast<uint64_t>(i));
  store(out, values);
}

void fill_uniform(const TensorView& out, double from, double to, const Philox& random) {
  if (enforces(Rule::kDeviceRandom)) {
    refuse_by(Rule::kDeviceRandom, kAicoreTimeout, "random numbers of the device (uniform_, exponential_) hang: draw them on the host");
  }
  const int bits = significant_bits(out.dtype);
  fill(out, [&](uint64_t i) {
    const double unit = unit_interval(bits > 24 ? random.wide(i) : uint64_t{random.word(i)} << 32, bits);
    return from + unit * (to - from);
  });
}

// Box and Muller's transform: elements 2i and 2i + 1 share one block of four words.
double standard_normal(const Philox& random, uint64_t index) {
  const uint64_t pair = index / 2 * 2;
  const double radius = std::sqrt(-2 * std::log(1 - unit_interval(random.wide(pair), 53)));
  const double angle = 2 * std::numbers::pi * unit_interval(random.wide(pair + 1), 53);
  return index % 2 == 0 ? radius * std::cos(angle) : radius * std::sin(angle);
}

void fill_normal(const TensorView& out, double mean, double deviation, const Philox& random) {
  fill(out, [&](uint64_t i) { return mean + deviation * standard_normal(random, i); });
}

void fill_normal(const TensorView& out, const at::Tensor& mean, const at::Tensor& deviation, const Philox& random) {
  const at::IntArrayRef sizes(out.sizes.data(), out.sizes.size());
  const at::Tensor means = mean.to(at::kDouble).expand(sizes).contiguous();
  const at::Tensor deviations = deviation.to(at::kDouble).expand(sizes).contiguous();
  const double* m = means.const_data_ptr<double>();
  const double* d = deviations.const_data_ptr<double>();
  fill(out, [&](uint64_t i) { return m[i] + d[i] * standard_normal(random, i); });
}

at::Tensor constant(float value) { return at::empty({}, at::kDouble).fill_(value); }

// Integers in [from, to); the modulus is PyTorch's own choice, biased by less than 2^-32.
void fill_integers(const TensorView& out, int64_t from, int64_t to, const Philox& random) {
  const uint64_t range = static_cast<uint64_t>(to) - static_cast<uint64_t>(from);
  const bool wide = range > UINT32_MAX;
  fill(out, [&](uint64_t i) {
    return static_cast<int64_t>(static_cast<uint64_t>(from) + (wide ? random.wide(i) : random.word(i)) % range);
  });
}

void check_range(int64_t from, int64_t to) {
  require(from < to, "from is %lld, but must be less than to, which is %lld.", static_cast<long long>(from),
          static_cast<long long>(to));
}

// One exponentially distributed number for each weight turns sampling without replacement into a selection of the
// largest ratios (Efraimidis and Spirakis, 2006).
at::Tensor multinomial(const at::Tensor& weights, int64_t count, bool replacement, const Philox& random) {
  const at::Tensor rows = weights.to(at::kDouble).reshape({-1, weights.size(-1)});
  at::DimVector sizes(weights.sizes().begin(), weights.sizes().end());
  sizes.back() = count;
  if (replacement) {
    const at::Tensor cumulative = rows.cumsum(-1);
    const at::Tensor totals = cumulative.narrow(-1, rows.size(-1) - 1, 1);
    at::Tensor points = at::empty({rows.size(0), count}, at::kDouble);
    auto* data = points.mutable_data_ptr<double>();
    for (int64_t i = 0; i < points.numel(); ++i) data[i] = unit_interval(random.wide(i), 53);
    return at::searchsorted(cumulative, points.mul_(totals), false, /*right=*/true).view(sizes);
  }
  at::Tensor exponential = at::empty(rows.sizes(), at::kDouble);
  auto* data = exponential.mutable_data_ptr<double>();
  for (int64_t i = 0; i < exponential.numel(); ++i) data[i] = -std::log(1 - unit_interval(random.wide(i), 53));
  return std::get<1>(at::topk(at::div(rows, exponential), count, -1)).view(sizes);
}

void check_multinomial(const TensorView& self, int64_t count, bool replacement) {
  require_rank(self, "self", 1, 2);
  require(count > 0 && (replacement || count <= self.sizes.back()),
          "numsamples is %lld, but %lld categories without replacement allow no more.", static_cast<long long>(count),
          static_cast<long long>(self.sizes.back()));
}

}  // namespace

namespace {

void check_deviation(double deviation) {
  require(deviation >= 0, "std is %g, but must not be negative.", deviation);
}

void check_bounds(double from, double to) { require(from <= to, "from is %g, but must be at most to, which is %g.", from, to); }

}  // namespace

ACLNN_CHECK(InplaceUniform) { check_bounds(a.from, a.to); }
ACLNN_CHECK(InplaceNormal) { check_deviation(a.std); }
ACLNN_CHECK(NormalFloatFloat) { check_deviation(a.std); }
ACLNN_CHECK(NormalFloatTensor) { require_sizes(a.out, "out", a.std.sizes); }
ACLNN_CHECK(NormalTensorFloat) { check_deviation(a.std), require_sizes(a.out, "out", a.mean.sizes); }
ACLNN_CHECK(NormalTensorTensor) { require_sizes(a.out, "out", broadcast_sizes(a.mean, "mean", a.std, "std")); }
ACLNN_CHECK(InplaceBernoulli) {
  const double probability = a.prob.to_double();
  require(probability >= 0 && probability <= 1, "prob is %g, but must lie in [0, 1].", probability);
}
ACLNN_CHECK(InplaceBernoulliTensor) {
  require_sizes(a.selfRef, "selfRef", broadcast_sizes(a.selfRef, "selfRef", a.prob, "prob"));
}
ACLNN_KERNEL(InplaceUniform) { fill_uniform(a.selfRef, a.from, a.to, Philox(a.seed, a.offset)); }
ACLNN_CHECK(InplaceUniformTensor) { check_state(a.seedTensor, a.offsetTensor); }
ACLNN_KERNEL(InplaceUniformTensor) {
  fill_uniform(a.selfRef, a.from, a.to, philox(a.seedTensor, a.offsetTensor, a.offset));
}

ACLNN_KERNEL(InplaceNormal) { fill_normal(a.selfRef, a.mean, a.std, Philox(a.seed, a.offset)); }
ACLNN_CHECK(InplaceNormalTensor) { check_state(a.seedTensor, a.offsetTensor); }
ACLNN_KERNEL(InplaceNormalTensor) {
  fill_normal(a.selfRef, a.mean, a.std, philox(a.seedTensor, a.offsetTensor, a.offset));
}
ACLNN_KERNEL(NormalFloatFloat) { fill_normal(a.out, a.mean, a.std, Philox(a.seed, a.offset)); }
ACLNN_KERNEL(NormalFloatTensor) { fill_normal(a.out, constant(a.mean), in(a.std), Philox(a.seed, a.offset)); }
ACLNN_KERNEL(NormalTensorFloat) { fill_normal(a.out, in(a.mean), constant(a.std), Philox(a.seed, a.offset)); }
ACLNN_KERNEL(NormalTensorTensor) { fill_normal(a.out, in(a.mean), in(a.std), Philox(a.seed, a.offset)); }

ACLNN_CHECK(InplaceRandom) { check_range(a.from, a.to); }
ACLNN_KERNEL(InplaceRandom) { fill_integers(a.selfRef, a.from, a.to, Philox(a.seed, a.offset)); }
ACLNN_CHECK(InplaceRandomTensor) { check_range(a.from, a.to), check_state(a.seedTensor, a.offsetTensor); }
ACLNN_KERNEL(InplaceRandomTensor) {
  fill_integers(a.selfRef, a.from, a.to, philox(a.seedTensor, a.offsetTensor, a.offset));
}

ACLNN_KERNEL(InplaceBernoulli) {
  const double probability = a.prob.to_double();
  const Philox random(a.seed, a.offset);
  fill(a.selfRef, [&](uint64_t i) { return int64_t{unit_interval(random.wide(i), 53) < probability}; });
}
ACLNN_KERNEL(InplaceBernoulliTensor) {
  const at::IntArrayRef sizes(a.selfRef.sizes.data(), a.selfRef.sizes.size());
  const at::Tensor probability = in(a.prob).to(at::kDouble).expand(sizes).contiguous();
  const double* p = probability.const_data_ptr<double>();
  const Philox random(a.seed, a.offset);
  fill(a.selfRef, [&](uint64_t i) { return int64_t{unit_interval(random.wide(i), 53) < p[i]}; });
}

ACLNN_CHECK(SimThreadExponential) {
  require(a.lambda > 0, "lambda is %g, but must be positive.", a.lambda);
  require(a.count == a.selfRef.numel(), "count is %lld, but selfRef has %lld elements.",
          static_cast<long long>(a.count), static_cast<long long>(a.selfRef.numel()));
}
ACLNN_KERNEL(SimThreadExponential) {
  const Philox random(a.seed, a.offset);
  fill(a.selfRef, [&](uint64_t i) { return -std::log(1 - unit_interval(random.wide(i), 53)) / a.lambda; });
}

ACLNN_CHECK(Randperm) {
  require(a.n >= 0 && a.out.numel() == a.n, "out has %lld elements, but n is %lld.",
          static_cast<long long>(a.out.numel()), static_cast<long long>(a.n));
}
ACLNN_KERNEL(Randperm) {  // Fisher and Yates
  at::Tensor values = at::arange(a.n, at::kLong);
  auto* data = values.mutable_data_ptr<int64_t>();
  const Philox random(a.seed, a.offset);
  for (int64_t i = a.n - 1; i > 0; --i) std::swap(data[i], data[random.wide(i) % static_cast<uint64_t>(i + 1)]);
  store(a.out, values);
}

ACLNN_CHECK(Multinomial) { check_multinomial(a.self, a.numsamples, a.replacement); }
ACLNN_KERNEL(Multinomial) {
  store(a.out, multinomial(in(a.self), a.numsamples, a.replacement, Philox(a.seed, a.offset)));
}
ACLNN_CHECK(MultinomialTensor) {
  check_multinomial(a.self, a.numsamples, a.replacement);
  check_state(a.seedTensor, a.offsetTensor);
}
ACLNN_KERNEL(MultinomialTensor) {
  store(a.out, multinomial(in(a.self), a.numsamples, a.replacement, philox(a.seedTensor, a.offsetTensor, a.offset)));
}

}  // namespace emulator::aclnn
