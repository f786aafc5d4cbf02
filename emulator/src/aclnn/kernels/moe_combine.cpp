// Mixture of experts: the rows of the experts summed up for each token, and what leads there.
// Semantics: hicann/ops-transformer, moe/{moe_finalize_routing*,moe_token_*,moe_compute_expert_tokens}, and the
// equivalents in torch_npu's documents.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "aclnn/kernels/contiguous.h"
#include "aclnn/kernels/float_values.h"
#include "aclnn_arguments.h"
#include "math/convert.h"

namespace emulator::aclnn {

namespace {

constexpr int64_t kHiddenAlignment310p = 32;

// out[i] = skip1[i] + skip2[i] + sum over k of scale[i, k] * (rows[index of (i, k)] + bias[expert of (i, k)])
struct Combination {
  const TensorView& rows;   // [slots, hidden]; [experts, capacity, hidden] where tokens were dropped
  const TensorView& index;  // [slots], -1: no row
  const TensorView& skip1;
  const TensorView& skip2;
  const TensorView& bias;    // [experts, hidden]
  const TensorView& scales;  // [tokens, k]; without it k is 1
  const TensorView& experts;  // [tokens, k], for bias
  bool by_column;             // slots are numbered first choices first, instead of token by token
  const TensorView& out;      // [tokens, hidden]

  int64_t k() const { return scales.defined() ? scales.sizes.back(0) : 1; }
};

void check_combination(const Combination& c) {
  require_rank(c.rows, "expandedX", 2, 3);
  require_dtype(c.rows, "expandedX", {ACL_FLOAT16, ACL_BF16, ACL_FLOAT});
  require_dtype(c.index, "expandedRowIdx", {ACL_INT32});
  require_rank(c.index, "expandedRowIdx", 1, 1);
  require_same_dtype(c.out, "out", c.rows, "expandedX");
  require(c.skip1.defined() || !c.skip2.defined(), "x2 must be null where x1 is.");
  require(!c.bias.defined() || c.experts.defined(), "bias needs the indices of the experts.");
  if (c.scales.defined()) {
    require_rank(c.scales, "scales", 2, 2);
    require(c.scales.sizes[1] > 0, "scales has no columns, but a token has at least one expert.");
    const bool mixed = c.rows.dtype == ACL_BF16 && c.scales.dtype == ACL_FLOAT;
    if (!mixed && chip().product != kA5) require_same_dtype(c.scales, "scales", c.rows, "expandedX");
  }
  const int64_t tokens = c.index.sizes[0] / c.k(), hidden = c.rows.sizes.back(0);
  require(c.index.sizes[0] == tokens * c.k(), "expandedRowIdx has %lld elements, but must have a multiple of %lld.",
          static_cast<long long>(c.index.sizes[0]), static_cast<long long>(c.k()));
  require_sizes(c.out, "out", {tokens, hidden});
  if (c.scales.defined()) require_sizes(c.scales, "scales", {tokens, c.k()});
  for (const TensorView* skip : {&c.skip1, &c.skip2}) {
    if (!skip->defined()) continue;
    require_same_dtype(*skip, "x1 and x2", c.rows, "expandedX");
    require_sizes(*skip, "x1 and x2", c.out.sizes);
  }
  if (!c.bias.defined()) return;
  require_same_dtype(c.bias, "bias", c.rows, "expandedX");
  require(c.bias.rank() == 2 && c.bias.sizes[1] == hidden, "bias has sizes %s, but must have [experts, %lld].",
          to_string(c.bias.sizes).c_str(), static_cast<long long>(hidden));
  require_dtype(c.experts, "the experts' indices", {ACL_INT32});
  require_sizes(c.experts, "the experts' indices", {tokens, c.k()});
}

void add_row(const std::vector<float>& from, int64_t row, float scale, float* to, int64_t hidden, const char* name) {
  if (row < 0 || (row + 1) * hidden > static_cast<int64_t>(from.size())) {
    fail(kAicoreException, "row %lld of %s was asked for, but it has %zu.", static_cast<long long>(row), name,
         from.size() / hidden);
  }
  for (int64_t d = 0; d < hidden; ++d) to[d] += scale * from[row * hidden + d];
}

void combine(const Combination& c) {
  const int64_t tokens = c.out.sizes[0], hidden = c.out.sizes[1], k = c.k();
  const std::vector<float> rows = float_values(c.rows), bias = float_values(c.bias), scales = float_values(c.scales);
  const std::vector<float> second = float_values(c.skip2);
  const std::vector<int64_t> index = int_values(c.index), experts = int_values(c.experts);
  std::vector<float> out = c.skip1.defined() ? float_values(c.skip1) : std::vector<float>(tokens * hidden);
  for (size_t i = 0; i < second.size(); ++i) out[i] += second[i];
  for (int64_t token = 0; token < tokens; ++token) {
    for (int64_t choice = 0; choice < k; ++choice) {
      const float scale = scales.empty() ? 1.0f : scales[token * k + choice];
      const int64_t row = index[c.by_column ? choice * tokens + token : token * k + choice];
      if (row != -1) add_row(rows, row, scale, &out[token * hidden], hidden, "expandedX");
      if (!bias.empty()) add_row(bias, experts[token * k + choice], scale, &out[token * hidden], hidden, "bias");
    }
  }
  store_values(c.out, out);
}

Combination combination_of(const MoeFinalizeRoutingV2Args& a) {
  return {a.expandedX, a.expandedRowIdx, a.x1Optional, a.x2Optional, a.biasOptional, a.scalesOptional, a.expertIdxOptional,
          a.dropPadMode < 2, a.out};
}
Combination combination_of(const MoeFinalizeRoutingArgs& a) {
  return {a.expandedX, a.expandedRowIdx, a.x1, a.x2Optional, a.bias, a.scales, a.expandedExpertIdx, true, a.out};
}

}  // namespace

ACLNN_CHECK(MoeFinalizeRouting) { check_combination(combination_of(a)); }
ACLNN_KERNEL(MoeFinalizeRouting) { combine(combination_of(a)); }

ACLNN_CHECK(MoeFinalizeRoutingV2) {
  require(a.dropPadMode >= 0 && a.dropPadMode <= 3, "dropPadMode is %lld, but must be 0 to 3.",
          static_cast<long long>(a.dropPadMode));
  check_combination(combination_of(a));
  const bool padded = a.dropPadMode % 2 == 1;
  require(a.expandedX.rank() == (padded ? 3 : 2), "expandedX has %d dimensions, but must have %d with dropPadMode %lld.",
          a.expandedX.rank(), padded ? 3 : 2, static_cast<long long>(a.dropPadMode));
  if (chip().product != kAtlasInference) return;
  require(a.dropPadMode == 2, "dropPadMode is %lld, but must be 2 on %s.", static_cast<long long>(a.dropPadMode),
          chip().soc_version);
  require(!a.x1Optional.defined() && !a.x2Optional.defined() && !a.biasOptional.defined() && !a.expertIdxOptional.defined(),
          "x1, x2, bias and expertIdx must be null on %s.", chip().soc_version);
  require(a.expandedX.sizes[1] % kHiddenAlignment310p == 0, "expandedX is %lld wide, but must be a multiple of 32 on %s.",
          static_cast<long long>(a.expandedX.sizes[1]), chip().soc_version);
}
ACLNN_KERNEL(MoeFinalizeRoutingV2) { combine(combination_of(a)); }

// Position of the last row of each expert among sorted experts, as a count.
ACLNN_CHECK(MoeComputeExpertTokens) {
  require_rank(a.sortedExperts, "sortedExperts", 1, 1);
  require_dtype(a.sortedExperts, "sortedExperts", {ACL_INT32});
  require(a.numExperts > 0 && a.numExperts <= 2048, "numExperts is %lld, but must be 1 to 2048.",
          static_cast<long long>(a.numExperts));
  require_dtype(a.out, "out", {ACL_INT32});
  require_sizes(a.out, "out", {a.numExperts});
}
ACLNN_KERNEL(MoeComputeExpertTokens) {
  const std::vector<int64_t> sorted = int_values(a.sortedExperts);
  std::vector<int64_t> ends(a.numExperts);
  for (int64_t e = 0; e < a.numExperts; ++e) ends[e] = std::upper_bound(sorted.begin(), sorted.end(), e) - sorted.begin();
  store_values(a.out, ends);
}

// ---- tokens in the order of their experts and back, as Megatron names them ----

ACLNN_CHECK(MoeTokenPermute) {
  require_rank(a.tokens, "tokens", 2, 2);
  require_rank(a.indices, "indices", 1, 2);
  require_dtype(a.tokens, "tokens", {ACL_BF16, ACL_FLOAT16, ACL_FLOAT});
  require_dtype(a.indices, "indices", {ACL_INT32, ACL_INT64});
  require(!a.paddedMode, "paddedMode must be false.");
  require(a.indices.sizes[0] == a.tokens.sizes[0], "indices has %lld rows and tokens %lld, but they must be equal.",
          static_cast<long long>(a.indices.sizes[0]), static_cast<long long>(a.tokens.sizes[0]));
  require(a.indices.rank() == 1 || a.indices.sizes[1] <= 512, "indices has %lld columns, but must have at most 512.",
          static_cast<long long>(a.indices.sizes.back(0)));
  require_same_dtype(a.permuteTokensOut, "permuteTokensOut", a.tokens, "tokens");
  require_rank(a.permuteTokensOut, "permuteTokensOut", 2, 2);
  require(a.permuteTokensOut.sizes[1] == a.tokens.sizes[1], "permuteTokensOut is %lld wide, but tokens %lld.",
          static_cast<long long>(a.permuteTokensOut.sizes[1]), static_cast<long long>(a.tokens.sizes[1]));
  require_dtype(a.sortedIndicesOut, "sortedIndicesOut", {ACL_INT32});
  require(a.sortedIndicesOut.numel() == a.indices.numel(), "sortedIndicesOut must have as many elements as indices.");
}
ACLNN_KERNEL(MoeTokenPermute) {
  const std::vector<int64_t> experts = int_values(a.indices);
  std::vector<int64_t> order(experts.size()), position(experts.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t p, int64_t q) { return experts[p] < experts[q]; });
  for (size_t i = 0; i < order.size(); ++i) position[order[i]] = static_cast<int64_t>(i);
  store_values(a.sortedIndicesOut, position);
  const int64_t k = a.indices.rank() == 2 ? a.indices.sizes[1] : 1, row_bytes = a.tokens.sizes[1] * element_bits(a.tokens.dtype) / 8;
  const DenseInput tokens(a.tokens);
  const DenseOutput out(a.permuteTokensOut);
  const int64_t rows = std::min<int64_t>(a.permuteTokensOut.sizes[0], static_cast<int64_t>(order.size()));
  for (int64_t i = 0; i < rows; ++i) {
    std::memcpy(out.data_as<char>() + i * row_bytes, tokens.data_as<char>() + order[i] / k * row_bytes, row_bytes);
  }
}

ACLNN_CHECK(MoeTokenUnpermute) {
  require_rank(a.permutedTokens, "permutedTokens", 2, 2);
  require_dtype(a.permutedTokens, "permutedTokens", {ACL_BF16, ACL_FLOAT16, ACL_FLOAT});
  require_dtype(a.sortedIndices, "sortedIndices", {ACL_INT32});
  require_rank(a.sortedIndices, "sortedIndices", 1, 1);
  require(!a.paddedMode, "paddedMode must be false.");
  int64_t k = 1;
  if (a.probsOptional.defined()) {
    require_rank(a.probsOptional, "probs", 2, 2);
    require_dtype(a.probsOptional, "probs", {ACL_BF16, ACL_FLOAT16, ACL_FLOAT});
    k = a.probsOptional.sizes[1];
    require(k >= 1 && k <= 512, "probs has %lld columns, but must have 1 to 512.", static_cast<long long>(k));
    require(a.probsOptional.numel() == a.sortedIndices.numel(), "probs must have as many elements as sortedIndices.");
  }
  require_same_dtype(a.out, "out", a.permutedTokens, "permutedTokens");
  require_sizes(a.out, "out", {a.sortedIndices.numel() / k, a.permutedTokens.sizes[1]});
}
ACLNN_KERNEL(MoeTokenUnpermute) {
  const std::vector<float> rows = float_values(a.permutedTokens), probs = float_values(a.probsOptional);
  const std::vector<int64_t> index = int_values(a.sortedIndices);
  const int64_t hidden = a.permutedTokens.sizes[1], k = probs.empty() ? 1 : a.probsOptional.sizes[1];
  std::vector<float> out(a.out.numel());
  for (size_t slot = 0; slot < index.size(); ++slot) {
    if (index[slot] >= a.permutedTokens.sizes[0]) continue;  // its token was dropped
    add_row(rows, index[slot], probs.empty() ? 1.0f : probs[slot], &out[static_cast<int64_t>(slot) / k * hidden], hidden,
            "permutedTokens");
  }
  store_values(a.out, out);
}

}  // namespace emulator::aclnn
