// Mixture of experts: which experts take a token, and with what weight.
// Semantics: hicann/ops-transformer, moe/moe_gating_top_k*/docs, and the equivalents in torch_npu's documents.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "aclnn/kernels/float_values.h"
#include "aclnn/kernels/norm_rows.h"
#include "aclnn_arguments.h"
#include "silicon/rules.h"

namespace emulator::aclnn {

namespace {

void softmax(float* row, int64_t count) {
  const float largest = *std::max_element(row, row + count);
  float sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += row[i] = std::exp(row[i] - largest);
  for (int64_t i = 0; i < count; ++i) row[i] /= sum;
}

// Positions of the k largest of `count` values, largest first; of equal ones the first.
std::vector<int64_t> largest(const float* values, int64_t count, int64_t k) {
  std::vector<int64_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  std::partial_sort(order.begin(), order.begin() + k, order.end(), [&](int64_t p, int64_t q) {
    return values[p] > values[q] || (values[p] == values[q] && p < q);
  });
  order.resize(k);
  return order;
}

void check_softmax(const TensorView& x, const TensorView& finished, int64_t k, const TensorView& y,
                   const TensorView& expert) {
  require_rank(x, "x", 2, 3);
  require_dtype(x, "x", {ACL_FLOAT16, ACL_BF16, ACL_FLOAT});
  require(k > 0 && k <= x.sizes.back(0), "k is %lld, but must be 1 to the number of experts, %lld.",
          static_cast<long long>(k), static_cast<long long>(x.sizes.back(0)));
  require(k <= 1024, "k is %lld, but must be at most 1024.", static_cast<long long>(k));
  if (finished.defined()) {
    require_dtype(finished, "finishedOptional", {ACL_BOOL});
    require_sizes(finished, "finishedOptional", Dims(x.sizes.data(), x.rank() - 1));
  }
  Dims chosen = x.sizes;
  chosen[chosen.rank() - 1] = k;
  require_same_dtype(x, "x", y, "yOut");
  require_sizes(y, "yOut", chosen);
  require_dtype(expert, "expertIdxOut", {ACL_INT32});
  require_sizes(expert, "expertIdxOut", chosen);
}

struct Chosen {
  std::vector<float> weights;    // [rows, k]
  std::vector<int64_t> experts;  // [rows, k]
};

// The k largest of each row of values [rows, experts]; a finished row asks for an expert that does not exist.
Chosen choose(const std::vector<float>& values, int64_t experts, int64_t k, const TensorView& finished) {
  const std::vector<int64_t> done = int_values(finished);
  Chosen chosen;
  for (int64_t row = 0; row * experts < static_cast<int64_t>(values.size()); ++row) {
    for (const int64_t expert : largest(&values[row * experts], experts, k)) {
      chosen.weights.push_back(values[row * experts + expert]);
      chosen.experts.push_back(!done.empty() && done[row] != 0 ? experts : expert);
    }
  }
  return chosen;
}

std::vector<float> probabilities(const TensorView& x) {
  std::vector<float> values = float_values(x);
  const int64_t experts = x.sizes.back(0);
  for (size_t at = 0; at < values.size(); at += experts) softmax(&values[at], experts);
  return values;
}

}  // namespace

namespace {

constexpr int64_t kMostRows310p = 1024;

void check_limits_310p(const TensorView& x, const TensorView& finished) {
  const int64_t experts = x.sizes.back(0);
  if (x.dtype != ACL_FLOAT16 || x.rank() != 2 || finished.defined() || experts % 16 != 0 || experts > 256) {
    refuse_by(Rule::kMoeGatingLimits, kInnerTilingError,
              "x is %s %s%s, but must be float16 [tokens, experts] with a multiple of 16 experts, at most 256, and without "
              "finished", dtype_name(x.dtype), to_string(x.sizes).c_str(), finished.defined() ? " with finished" : "");
  }
}

// Rule moe_gating_rows: from the 1,025th row on the experts are wrong ones.
void spoil_rows(std::vector<int64_t>& experts_of, int64_t k, int64_t experts) {
  const auto first = static_cast<size_t>(kMostRows310p * k);
  if (experts_of.size() <= first) return;
  for (size_t i = first; i < experts_of.size(); ++i) experts_of[i] = (experts_of[i] + experts / 2) % experts;
  tell(Rule::kMoeGatingRows, "aclnnMoeGatingTopKSoftmax", "the experts of row 1,025 and on of %zu are wrong: call it for 1,024",
       experts_of.size() / static_cast<size_t>(k));
}

}  // namespace

ACLNN_CHECK(MoeGatingTopKSoftmax) {
  check_softmax(a.x, a.finishedOptional, a.k, a.yOut, a.expertIdxOut);
  if (enforces(Rule::kMoeGatingLimits)) check_limits_310p(a.x, a.finishedOptional);
  require_dtype(a.rowIdxOut, "rowIdxOut", {ACL_INT32});
  require_sizes(a.rowIdxOut, "rowIdxOut", a.yOut.sizes);
}
ACLNN_KERNEL(MoeGatingTopKSoftmax) {
  Chosen chosen = choose(probabilities(a.x), a.x.sizes.back(0), a.k, a.finishedOptional);
  if (enforces(Rule::kMoeGatingRows)) spoil_rows(chosen.experts, a.k, a.x.sizes.back(0));
  store_values(a.yOut, chosen.weights);
  store_values(a.expertIdxOut, chosen.experts);
  std::vector<int64_t> positions(chosen.experts.size());  // the slots of all rows, first choices first
  const auto rows = static_cast<int64_t>(positions.size()) / a.k;
  const bool fills = !enforces(Rule::kMoeGatingRowIndex);
  for (int64_t i = 0; fills && i < static_cast<int64_t>(positions.size()); ++i) positions[i] = i % a.k * rows + i / a.k;
  store_values(a.rowIdxOut, positions);
}

ACLNN_CHECK(MoeGatingTopKSoftmaxV2) {
  check_softmax(a.x, a.finishedOptional, a.k, a.yOut, a.expertIdxOut);
  require(a.renorm == 0 || a.renorm == 1, "renorm is %lld, but must be 0 or 1.", static_cast<long long>(a.renorm));
  if (a.renorm == 0 && a.outputSoftmaxResultFlag) {
    require(a.softmaxResultOutOptional.defined(), "softmaxResultOut must not be null where its flag is set.");
    require_dtype(a.softmaxResultOutOptional, "softmaxResultOut", {ACL_FLOAT});
    require_sizes(a.softmaxResultOutOptional, "softmaxResultOut", a.x.sizes);
  }
}
ACLNN_KERNEL(MoeGatingTopKSoftmaxV2) {
  const std::vector<float> values = a.renorm == 0 ? probabilities(a.x) : float_values(a.x);
  Chosen chosen = choose(values, a.x.sizes.back(0), a.k, a.finishedOptional);
  if (a.renorm == 1) {
    for (size_t at = 0; at < chosen.weights.size(); at += a.k) softmax(&chosen.weights[at], a.k);
  } else if (a.outputSoftmaxResultFlag) {
    store_values(a.softmaxResultOutOptional, values);
  }
  store_values(a.yOut, chosen.weights);
  store_values(a.expertIdxOut, chosen.experts);
}

// ---- MoeGatingTopK: the best experts of the best groups ----

namespace {

constexpr int64_t kMaxExperts = 2048;
constexpr int64_t kGroupAlignment = 32;
enum GroupSelectMode : int64_t { kByLargest = 0, kByLargestTwo = 1 };
enum NormType : int64_t { kSoftmax = 0, kSigmoid = 1 };

// Values outside the k_group best groups become -inf.
void keep_best_groups(float* values, int64_t experts, const MoeGatingTopKArgs& a) {
  const int64_t size = experts / a.groupCount;
  std::vector<float> scores(a.groupCount);
  for (int64_t group = 0; group < a.groupCount; ++group) {
    const float* members = values + group * size;
    const std::vector<int64_t> best = largest(members, size, a.groupSelectMode == kByLargestTwo ? 2 : 1);
    for (const int64_t member : best) scores[group] += members[member];
  }
  std::vector<bool> kept(a.groupCount);
  for (const int64_t group : largest(scores.data(), a.groupCount, a.kGroup)) kept[group] = true;
  for (int64_t i = 0; i < experts; ++i) {
    if (!kept[i / size]) values[i] = -std::numeric_limits<float>::infinity();
  }
}

void check_groups(const MoeGatingTopKArgs& a) {
  const int64_t experts = a.x.sizes.back(0);
  if (experts > kMaxExperts) fail(kInnerTilingError, "x has %lld experts, but at most 2048.", static_cast<long long>(experts));
  if (a.groupCount < 1 || experts % a.groupCount != 0) {
    fail(kInnerTilingError, "groupCount is %lld, but must divide the %lld experts.", static_cast<long long>(a.groupCount),
         static_cast<long long>(experts));
  }
  const int64_t size = experts / a.groupCount;
  const int64_t aligned = (size + kGroupAlignment - 1) / kGroupAlignment * kGroupAlignment;
  if (a.groupCount > 1 && (size <= 2 || aligned * a.groupCount > kMaxExperts)) {
    fail(kInnerTilingError, "groups of %lld experts: more than 2 are needed, and at most 2048 with groups padded to 32.",
         static_cast<long long>(size));
  }
  if (a.kGroup < 1 || a.kGroup > a.groupCount || a.k < 1 || a.k > a.kGroup * size) {
    fail(kInnerTilingError, "k is %lld and kGroup %lld: kGroup must be 1 to %lld, and k at most kGroup groups of %lld.",
         static_cast<long long>(a.k), static_cast<long long>(a.kGroup), static_cast<long long>(a.groupCount),
         static_cast<long long>(size));
  }
}

}  // namespace

ACLNN_CHECK(MoeGatingTopK) {
  require_rank(a.x, "x", 2, 2);
  require_dtype(a.x, "x", {ACL_FLOAT16, ACL_BF16, ACL_FLOAT});
  if (a.biasOptional.defined()) {
    require_same_dtype(a.biasOptional, "bias", a.x, "x");
    require_sizes(a.biasOptional, "bias", {a.x.sizes.back(0)});
  }
  check_groups(a);
  require(a.groupSelectMode == kByLargest || a.groupSelectMode == kByLargestTwo, "groupSelectMode is %lld, but must be 0 or 1.",
          static_cast<long long>(a.groupSelectMode));
  require(a.renorm == 0, "renorm is %lld, but must be 0.", static_cast<long long>(a.renorm));
  require(a.normType == kSoftmax || a.normType == kSigmoid, "normType is %lld, but must be 0 (softmax) or 1 (sigmoid).",
          static_cast<long long>(a.normType));
  const Dims chosen{a.x.sizes[0], a.k};
  require_same_dtype(a.yOut, "yOut", a.x, "x");
  require_sizes(a.yOut, "yOut", chosen);
  require_dtype(a.expertIdxOut, "expertIdxOut", {ACL_INT32});
  require_sizes(a.expertIdxOut, "expertIdxOut", chosen);
  if (a.outFlag) {
    require_dtype(a.outOut, "outOut", {ACL_FLOAT});
    require_sizes(a.outOut, "outOut", a.x.sizes);
  }
}
ACLNN_KERNEL(MoeGatingTopK) {
  const int64_t experts = a.x.sizes.back(0);
  std::vector<float> norm = a.normType == kSoftmax ? probabilities(a.x) : float_values(a.x);
  if (a.normType == kSigmoid) {
    for (float& value : norm) value = 1.0f / (1.0f + std::exp(-value));
  }
  const std::vector<float> bias = float_values(a.biasOptional);
  std::vector<float> ranked(experts), weights;
  std::vector<int64_t> chosen;
  for (int64_t row = 0; row < a.x.sizes[0]; ++row) {
    const float* own = &norm[row * experts];
    for (int64_t i = 0; i < experts; ++i) ranked[i] = own[i] + (bias.empty() ? 0.0f : bias[i]);
    if (a.groupCount > 1) keep_best_groups(ranked.data(), experts, a);
    float sum = 0;
    const std::vector<int64_t> best = largest(ranked.data(), experts, a.k);
    for (const int64_t expert : best) sum += own[expert];
    const auto divisor = a.normType == kSigmoid ? sum + static_cast<float>(a.eps) : 1.0f;
    for (const int64_t expert : best) weights.push_back(own[expert] / divisor * static_cast<float>(a.routedScalingFactor));
    chosen.insert(chosen.end(), best.begin(), best.end());
  }
  store_values(a.yOut, weights);
  store_values(a.expertIdxOut, chosen);
  if (a.outFlag) store_values(a.outOut, norm);
}

}  // namespace emulator::aclnn
