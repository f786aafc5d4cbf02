// The gated delta rule of linear attention. For each token, with S [value dim, key dim] the state of a head:
//   S = exp(g) * diag(exp(gk)) * S;  S += beta * (v - S k) k^T;  o = S q * scale
// Semantics: torch_npu's documents of npu_recurrent_gated_delta_rule and npu_chunk_gated_delta_rule. The chunked form is
// an order of computation, not another result: both run token by token here.
#include <cmath>
#include <vector>

#include "aclnn/kernels/float_values.h"
#include "aclnn_arguments.h"

namespace emulator::aclnn {

namespace {

struct DeltaRule {
  const TensorView &query, &key;  // [tokens, key heads, key dim]
  const TensorView& value;        // [tokens, value heads, value dim]
  const TensorView &beta, &g;     // [tokens, value heads]
  const TensorView* gk;           // [tokens, value heads, key dim]
  const TensorView& lengths;      // [batch]
  float scale;
  const TensorView& out;

  int64_t tokens() const { return value.sizes[0]; }
  int64_t key_heads() const { return key.sizes[1]; }
  int64_t heads() const { return value.sizes[1]; }
  int64_t key_dim() const { return key.sizes[2]; }
  int64_t value_dim() const { return value.sizes[2]; }
  int64_t state_size() const { return value_dim() * key_dim(); }
};

void check_rule(const DeltaRule& r, int64_t most_heads, int64_t most_dim) {
  for (const TensorView* tensor : {&r.query, &r.key, &r.value, &r.out}) {
    require_dtype(*tensor, "query, key, value and out", {ACL_BF16});
    require_rank(*tensor, "query, key, value and out", 3, 3);
  }
  require_sizes(r.query, "query", r.key.sizes);
  require_sizes(r.out, "out", r.value.sizes);
  require(r.key.sizes[0] == r.tokens(), "key has %lld tokens and value %lld, but they must be equal.",
          static_cast<long long>(r.key.sizes[0]), static_cast<long long>(r.tokens()));
  require(r.heads() >= 1 && r.heads() <= most_heads && r.key_heads() >= 1 && r.heads() % r.key_heads() == 0,
          "%lld value heads must be 1 to %lld and a multiple of the %lld key heads.", static_cast<long long>(r.heads()),
          static_cast<long long>(most_heads), static_cast<long long>(r.key_heads()));
  require(r.key_dim() <= most_dim && r.value_dim() <= most_dim, "head sizes %lld and %lld must be at most %lld.",
          static_cast<long long>(r.key_dim()), static_cast<long long>(r.value_dim()), static_cast<long long>(most_dim));
  if (r.beta.defined()) {
    require_dtype(r.beta, "beta", {ACL_BF16});
    require_sizes(r.beta, "beta", {r.tokens(), r.heads()});
  }
  if (r.g.defined()) {
    require_dtype(r.g, "g", {ACL_FLOAT});
    require_sizes(r.g, "g", {r.tokens(), r.heads()});
  }
  require(r.lengths.defined(), "actualSeqLengths must not be null.");
  require_dtype(r.lengths, "actualSeqLengths", {ACL_INT32});
  require_rank(r.lengths, "actualSeqLengths", 1, 1);
}

// All inputs as floats, and the outputs to be.
struct Sequences {
  explicit Sequences(const DeltaRule& rule)
      : r(rule), query(float_values(r.query)), key(float_values(r.key)), value(float_values(r.value)),
        beta(float_values(r.beta)), g(float_values(r.g)), gk(r.gk == nullptr ? std::vector<float>{} : float_values(*r.gk)),
        out(r.out.numel()) {}

  void step(int64_t token, int64_t head, float* state) {
    const int64_t at = token * r.heads() + head, dk = r.key_dim(), dv = r.value_dim();
    const int64_t key_at = (token * r.key_heads() + head / (r.heads() / r.key_heads())) * dk;
    const float decay = g.empty() ? 1.0f : std::exp(g[at]), rate = beta.empty() ? 1.0f : beta[at];
    for (int64_t i = 0; i < dv; ++i) {
      float* row = state + i * dk;
      float known = 0.0f, result = 0.0f;
      for (int64_t j = 0; j < dk; ++j) {
        row[j] *= decay * (gk.empty() ? 1.0f : std::exp(gk[at * dk + j]));
        known += row[j] * key[key_at + j];
      }
      const float update = rate * (value[at * dv + i] - known);
      for (int64_t j = 0; j < dk; ++j) {
        row[j] += update * key[key_at + j];
        result += row[j] * query[key_at + j];
      }
      out[at * dv + i] = result * r.scale;
    }
  }

  const DeltaRule& r;
  std::vector<float> query, key, value, beta, g, gk, out;
};

void check_token(int64_t token, const DeltaRule& r) {
  if (token >= r.tokens()) fail(kAicoreException, "actualSeqLengths sum to more than the %lld tokens.", static_cast<long long>(r.tokens()));
}

Work work_of(const DeltaRule& r) {
  const auto steps = static_cast<double>(r.tokens() * r.heads() * r.state_size());
  return {.cube_flops = 6.0 * steps,
          .vector_flops = steps,
          .read_bytes = 2.0 * static_cast<double>(r.query.numel() * 2 + r.value.numel()),
          .written_bytes = 2.0 * static_cast<double>(r.out.numel())};
}

DeltaRule rule_of(const RecurrentGatedDeltaRuleArgs& a) {
  return {a.query, a.key, a.value, a.beta, a.g, &a.gk, a.actualSeqLengths, a.scaleValue, a.out};
}
DeltaRule rule_of(const ChunkGatedDeltaRuleArgs& a) {
  return {a.query, a.key, a.value, a.beta, a.gOptional, nullptr, a.actualSeqLengths, a.scaleValue, a.out};
}

constexpr int64_t kMostTokensOfASequence = 8;

}  // namespace

ACLNN_CHECK(RecurrentGatedDeltaRule) {
  const DeltaRule r = rule_of(a);
  check_rule(r, 256, 512);
  require_dtype(a.stateRef, "state", {ACL_BF16});
  require_rank(a.stateRef, "state", 4, 4);
  require_sizes(a.stateRef, "state", {a.stateRef.sizes[0], r.heads(), r.value_dim(), r.key_dim()});
  require(a.ssmStateIndices.defined(), "ssmStateIndices must not be null.");
  require_dtype(a.ssmStateIndices, "ssmStateIndices", {ACL_INT32});
  require_sizes(a.ssmStateIndices, "ssmStateIndices", {r.tokens()});
  if (a.gk.defined()) {
    require_dtype(a.gk, "gk", {ACL_FLOAT});
    require_sizes(a.gk, "gk", {r.tokens(), r.heads(), r.key_dim()});
  }
  if (!a.numAcceptedTokens.defined()) return;
  require_dtype(a.numAcceptedTokens, "numAcceptedTokens", {ACL_INT32});
  require_sizes(a.numAcceptedTokens, "numAcceptedTokens", a.actualSeqLengths.sizes);
}
// Each token's state is kept, so that a rejected draft can be undone: a sequence begins from its last accepted token's.
ACLNN_KERNEL(RecurrentGatedDeltaRule) {
  const DeltaRule r = rule_of(a);
  Sequences sequences(r);
  const std::vector<int64_t> lengths = int_values(a.actualSeqLengths), slots = int_values(a.ssmStateIndices);
  const std::vector<int64_t> accepted = int_values(a.numAcceptedTokens);
  std::vector<float> states = float_values(a.stateRef), state(r.state_size());
  const auto state_of = [&](int64_t token, int64_t head) {
    check_token(token, r);
    const int64_t slot = slots[token];
    if (slot < 0 || slot >= a.stateRef.sizes[0]) {
      fail(kAicoreException, "ssmStateIndices has %lld, but there are %lld states.", static_cast<long long>(slot),
           static_cast<long long>(a.stateRef.sizes[0]));
    }
    return states.begin() + (slot * r.heads() + head) * r.state_size();
  };
  int64_t begin = 0;
  for (size_t b = 0; b < lengths.size(); begin += lengths[b++]) {
    if (lengths[b] < 0 || lengths[b] > kMostTokensOfASequence) {
      fail(kAicoreException, "actualSeqLengths has %lld, but a sequence has at most 8 tokens.", static_cast<long long>(lengths[b]));
    }
    for (int64_t head = 0; head < r.heads() && lengths[b] > 0; ++head) {
      std::copy_n(state_of(begin + (accepted.empty() ? 0 : accepted[b] - 1), head), r.state_size(), state.begin());
      for (int64_t token = begin; token < begin + lengths[b]; ++token) {
        const auto kept = state_of(token, head);
        sequences.step(token, head, state.data());
        std::copy(state.begin(), state.end(), kept);
      }
    }
  }
  store_values(a.stateRef, states);
  store_values(a.out, sequences.out);
}
ACLNN_WORK(RecurrentGatedDeltaRule) { return work_of(rule_of(a)); }

ACLNN_CHECK(ChunkGatedDeltaRule) {
  const DeltaRule r = rule_of(a);
  check_rule(r, 64, 128);
  require(a.beta.defined() && a.initialState.defined(), "beta and initialState must not be null.");
  require_dtype(a.initialState, "initialState", {ACL_BF16});
  const Dims states{a.actualSeqLengths.sizes[0], r.heads(), r.value_dim(), r.key_dim()};
  require_sizes(a.initialState, "initialState", states);
  require_same_dtype(a.finalState, "finalState", a.initialState, "initialState");
  require_sizes(a.finalState, "finalState", states);
}
ACLNN_KERNEL(ChunkGatedDeltaRule) {
  const DeltaRule r = rule_of(a);
  Sequences sequences(r);
  const std::vector<int64_t> lengths = int_values(a.actualSeqLengths);
  std::vector<float> states = float_values(a.initialState);
  int64_t begin = 0;
  for (size_t b = 0; b < lengths.size(); begin += lengths[b++]) {
    if (lengths[b] > 0) check_token(begin + lengths[b] - 1, r);
    for (int64_t head = 0; head < r.heads(); ++head) {
      float* state = &states[(static_cast<int64_t>(b) * r.heads() + head) * r.state_size()];
      for (int64_t token = begin; token < begin + lengths[b]; ++token) sequences.step(token, head, state);
    }
  }
  store_values(a.finalState, states);
  store_values(a.out, sequences.out);
}
ACLNN_WORK(ChunkGatedDeltaRule) { return work_of(rule_of(a)); }

}  // namespace emulator::aclnn
