// AtbMLA, AtbRingMLA and AtbSelfAttentionPrefixEncoder on the attention core.
// Semantics: torch_npu's documents of npu_multi_head_latent_attention, npu_ring_mla and npu_self_attention_prefix_encoder;
// the references of op-plugin's tests.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "atb/api.h"
#include "math/attention.h"
#include "math/convert.h"

namespace emulator {

namespace {

constexpr std::initializer_list<aclDataType> kHalves = {ACL_FLOAT16, ACL_BF16};

void require_a2() { require(on_a2_or_a3(), ::atb::ERROR_INVALID_PARAM, "supported on Atlas A2 and A3 only."); }

void require_heads(int64_t heads, int64_t kv_heads) {
  if (heads < 1 || kv_heads < 1 || heads % kv_heads != 0) {
    reject(::atb::ERROR_INVALID_PARAM, "headNum is %lld and kvHeadNum %lld: the first must be a multiple of the second.",
           static_cast<long long>(heads), static_cast<long long>(kv_heads));
  }
}

[[noreturn]] void not_implemented(const char* what) {
  reject(::atb::ERROR_INVALID_PARAM, "the emulator does not implement %s yet.", what);
}

Work attention_work(double pairs, double width, double bytes, double written) {
  return {.cube_flops = 2.0 * pairs * width, .vector_flops = 6.0 * pairs, .read_bytes = bytes, .written_bytes = written};
}

int64_t sum(const std::vector<int32_t>& values) { return std::accumulate(values.begin(), values.end(), int64_t{0}); }

// A paged cache [blocks, block_size, heads, dim], or FRACTAL_NZ written out [blocks, heads * dim / 16, block_size, 16].
struct PagedCache {
  int64_t blocks, block_size;
  KeyValue keys;
};

PagedCache paged(const TensorView& cache, const char* name, int64_t kv_heads, int64_t dim, bool fractal) {
  if (cache.rank() != 4) reject(::atb::ERROR_INVALID_TENSOR_DIM_NUM, "%s must have 4 dimensions.", name);
  if (fractal) {
    const int64_t block_size = cache.is_fractal_nz() ? cache.storage_sizes.back(1) : cache.sizes[2];
    const int64_t stored = cache.is_fractal_nz() ? cache.storage_sizes.product() : cache.numel();
    if (block_size < 1 || stored < Dims{cache.sizes[0], block_size, kv_heads, dim}.product()) {
      reject(::atb::ERROR_INVALID_TENSOR_DIM, "%s has %lld elements: too few for its blocks of %lld heads of %lld.", name,
             static_cast<long long>(stored), static_cast<long long>(kv_heads), static_cast<long long>(dim));
    }
    return {cache.sizes[0], block_size, nz_paged_cache(nullptr, cache.dtype, kv_heads, dim, block_size)};
  }
  require_shape(cache, name, {cache.sizes[0], cache.sizes[1], kv_heads, dim});
  require(cache.sizes[1] > 0, ::atb::ERROR_INVALID_TENSOR_DIM, "the blocks of a cache must not be empty.");
  return {cache.sizes[0], cache.sizes[1], nd_paged_cache(nullptr, cache.dtype, kv_heads, dim, cache.sizes[1])};
}

void check_blocks(const TensorView& table, const std::vector<int32_t>& lengths, const PagedCache& cache) {
  const auto* ids = table.data_as<int32_t>();
  for (size_t b = 0; b < lengths.size(); ++b) {
    for (int64_t i = 0; i * cache.block_size < lengths[b]; ++i) {
      const int32_t id = ids[static_cast<int64_t>(b) * table.sizes[1] + i];
      if (id >= 0 && id < cache.blocks) continue;
      fail(kAicoreException, "blockTables[%zu][%lld] is %d, but the cache has %lld blocks.", b, static_cast<long long>(i), id,
           static_cast<long long>(cache.blocks));
    }
  }
}

void check_table(const TensorView& table, const std::vector<int32_t>& lengths, int64_t block_size) {
  require_type(table, "blockTables", {ACL_INT32});
  require(table.rank() == 2 && table.sizes[0] == static_cast<int64_t>(lengths.size()), ::atb::ERROR_INVALID_TENSOR_DIM,
          "blockTables must be [batch, blocks], a row for each length.");
  const int32_t longest = lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end());
  require(longest <= table.sizes[1] * block_size, ::atb::ERROR_INVALID_PARAM, "a length needs more blocks than blockTables has.");
}

// ---- AtbMLA: decoding with a latent cache ----

enum MlaCacheMode : uint8_t { kKropeCtkv = 1, kInt8Nz = 2, kNz = 3 };

struct Mla {
  TensorView query, query_rope, latent, key_rope, table, output, lse;
  std::vector<int32_t> lengths, query_lengths;
  int64_t heads, kv_heads;
  float scale;
  bool fractal;

  int64_t rank() const { return query.sizes[2]; }
  int64_t rope() const { return query_rope.sizes[2]; }
};

void check_mla(const Mla& m) {
  require_type(m.query, "qNope", kHalves);
  require_heads(m.heads, m.kv_heads);
  require(m.query.rank() == 3 && m.query_rope.rank() == 3, ::atb::ERROR_INVALID_TENSOR_DIM_NUM,
          "qNope and qRope must be [tokens, heads, size].");
  require_shape(m.query, "qNope", {m.query.sizes[0], m.heads, 512});
  require_shape(m.query_rope, "qRope", {m.query.sizes[0], m.heads, 64});
  for (const TensorView* tensor : {&m.query_rope, &m.latent, &m.key_rope, &m.output}) {
    require_type(*tensor, "qRope, ctKV, kRope and attenOut", {m.query.dtype});
  }
  require_shape(m.output, "attenOut", m.query.sizes);
  if (m.lse.defined()) {
    require_type(m.lse, "lse", {m.query.dtype, ACL_FLOAT});
    require(m.lse.numel() == m.query.sizes[0] * m.heads, ::atb::ERROR_INVALID_TENSOR_DIM, "lse must have tokens * heads elements.");
  }
  const PagedCache latent = paged(m.latent, "ctKV", m.kv_heads, m.rank(), m.fractal);
  const PagedCache rope = paged(m.key_rope, "kRope", m.kv_heads, m.rope(), m.fractal);
  require(latent.blocks == rope.blocks && latent.block_size == rope.block_size, ::atb::ERROR_INVALID_TENSOR_DIM,
          "ctKV and kRope must have the same blocks.");
  check_table(m.table, m.lengths, latent.block_size);
  require(m.query_lengths.size() == m.lengths.size() && sum(m.query_lengths) == m.query.sizes[0], ::atb::ERROR_INVALID_PARAM,
          "the query lengths must sum to the tokens of qNope, one for each context length.");
}

void run_mla(const Mla& m) {
  const PagedCache latent = paged(m.latent, "ctKV", m.kv_heads, m.rank(), m.fractal);
  check_blocks(m.table, m.lengths, latent);
  Attention op;
  op.heads = m.heads;
  op.kv_heads = m.kv_heads;
  op.scale = m.scale;
  op.query = m.query.data();
  op.query_dtype = m.query.dtype;
  op.query_token_stride = m.heads * m.rank();
  op.query_head_stride = m.rank();
  op.key = op.value = latent.keys;
  op.key.data = op.value.data = m.latent.data();
  op.block_size = latent.block_size;
  op.query_rope = m.query_rope.data();
  op.query_rope_token_stride = m.heads * m.rope();
  op.query_rope_head_stride = m.rope();
  op.key_rope = paged(m.key_rope, "kRope", m.kv_heads, m.rope(), m.fractal).keys;
  op.key_rope.data = m.key_rope.data();
  op.output = m.output.data();
  op.output_dtype = m.output.dtype;
  op.output_token_stride = op.query_token_stride;
  op.output_head_stride = op.query_head_stride;
  std::vector<float> lse(m.lse.defined() ? m.query.sizes[0] * m.heads : 0);
  op.lse = lse.empty() ? nullptr : lse.data();
  op.lse_token_stride = m.heads;
  op.lse_head_stride = 1;
  int64_t token = 0;
  for (size_t b = 0; b < m.lengths.size(); token += m.query_lengths[b++]) {
    Sequence s;
    s.query_length = m.query_lengths[b];
    s.kv_length = m.lengths[b];
    s.query_offset = s.output_offset = token * op.query_token_stride;
    s.query_rope_offset = token * op.query_rope_token_stride;
    s.lse_offset = token * m.heads;
    s.block_table = m.table.data_as<int32_t>() + static_cast<int64_t>(b) * m.table.sizes[1];
    op.sequences.push_back(s);
  }
  attention(op);
  if (!lse.empty()) from_float(lse.data(), m.lse.data(), m.lse.dtype, static_cast<int64_t>(lse.size()));
}

// ---- AtbRingMLA: prefill in parts, each part's result merged with the one before ----

struct RingMla {
  TensorView query, query_rope, key, key_rope, value, previous, previous_lse, output, lse;
  std::vector<int32_t> query_lengths, lengths;
  int64_t heads, kv_heads;
  float scale;
  bool causal;
};

void check_ring(const RingMla& m) {
  require_heads(m.heads, m.kv_heads);
  require_type(m.query, "querySplit1", kHalves);
  require(m.query.rank() == 3 && m.query_rope.rank() == 3 && m.key.rank() == 3, ::atb::ERROR_INVALID_TENSOR_DIM_NUM,
          "queries and keys must be [tokens, heads, size].");
  const int64_t tokens = m.query.sizes[0], keys = m.key.sizes[0];
  require_shape(m.query, "querySplit1", {tokens, m.heads, 128});
  require_shape(m.query_rope, "querySplit2", {tokens, m.heads, 64});
  require_shape(m.key, "keySplit1", {keys, m.kv_heads, 128});
  require_shape(m.key_rope, "keySplit2", {keys, m.kv_heads, 64});
  require_shape(m.value, "value", {keys, m.kv_heads, 128});
  for (const TensorView* tensor : {&m.query_rope, &m.key, &m.key_rope, &m.value, &m.output}) {
    require_type(*tensor, "querySplit2, the keys, value and output", {m.query.dtype});
  }
  require_shape(m.output, "output", m.query.sizes);
  require_type(m.lse, "softmaxLse", {ACL_FLOAT});
  require_shape(m.lse, "softmaxLse", {m.heads, tokens});
  require(sum(m.query_lengths) == tokens && sum(m.lengths) == keys, ::atb::ERROR_INVALID_PARAM,
          "seqLen must sum to the tokens of the queries and of the keys.");
  if (!m.previous.defined()) return;
  require_type(m.previous, "prevOut", {m.query.dtype});
  require_shape(m.previous, "prevOut", m.output.sizes);
  require_type(m.previous_lse, "prevLse", {ACL_FLOAT});
  require_shape(m.previous_lse, "prevLse", m.lse.sizes);
}

// out and lse of both parts together; a part without keys has an lse of +inf or -inf and does not count.
void merge(const RingMla& m, std::vector<float>& out, std::vector<float>& lse) {
  const int64_t tokens = m.query.sizes[0], dim = m.value.sizes[2];
  std::vector<float> previous(out.size()), previous_lse(lse.size());
  to_float(m.previous.data(), m.previous.dtype, previous.data(), static_cast<int64_t>(previous.size()));
  to_float(m.previous_lse.data(), ACL_FLOAT, previous_lse.data(), static_cast<int64_t>(lse.size()));
  for (int64_t head = 0; head < m.heads; ++head) {
    for (int64_t token = 0; token < tokens; ++token) {
      const int64_t at = head * tokens + token;
      const float old_lse = previous_lse[at], new_lse = std::isinf(lse[at]) ? -INFINITY : lse[at];
      const float largest = std::max(old_lse, new_lse);
      const float old_weight = std::exp(old_lse - largest), new_weight = std::exp(new_lse - largest);
      float* row = &out[(token * m.heads + head) * dim];
      const float* old_row = &previous[(token * m.heads + head) * dim];
      for (int64_t d = 0; d < dim; ++d) row[d] = (old_row[d] * old_weight + row[d] * new_weight) / (old_weight + new_weight);
      lse[at] = largest + std::log(old_weight + new_weight);
    }
  }
}

KeyValue packed_keys(const TensorView& tensor) {
  KeyValue kv;
  kv.data = tensor.data();
  kv.dtype = tensor.dtype;
  kv.dim = tensor.sizes[2];
  kv.token_stride = tensor.sizes[1] * tensor.sizes[2];
  kv.head_stride = tensor.sizes[2];
  return kv;
}

void run_ring(const RingMla& m) {
  const int64_t tokens = m.query.sizes[0], dim = m.value.sizes[2];
  std::vector<float> out(tokens * m.heads * dim), lse(m.heads * tokens);
  Attention op;
  op.heads = m.heads;
  op.kv_heads = m.kv_heads;
  op.scale = m.scale;
  op.query = m.query.data();
  op.query_dtype = m.query.dtype;
  op.query_token_stride = m.heads * m.query.sizes[2];
  op.query_head_stride = m.query.sizes[2];
  op.key = packed_keys(m.key);
  op.value = packed_keys(m.value);
  op.query_rope = m.query_rope.data();
  op.query_rope_token_stride = m.heads * m.query_rope.sizes[2];
  op.query_rope_head_stride = m.query_rope.sizes[2];
  op.key_rope = packed_keys(m.key_rope);
  op.output = out.data();
  op.output_dtype = ACL_FLOAT;
  op.output_token_stride = m.heads * dim;
  op.output_head_stride = dim;
  op.lse = lse.data();
  op.lse_token_stride = 1;
  op.lse_head_stride = tokens;
  int64_t token = 0, key = 0;
  for (size_t b = 0; b < m.lengths.size(); token += m.query_lengths[b], key += m.lengths[b++]) {
    Sequence s;
    s.query_length = m.query_lengths[b];
    s.kv_length = m.lengths[b];
    s.query_offset = token * op.query_token_stride;
    s.query_rope_offset = token * op.query_rope_token_stride;
    s.output_offset = token * op.output_token_stride;
    s.lse_offset = token;
    s.key_offset = key * op.key.token_stride;
    s.value_offset = key * op.value.token_stride;
    s.key_rope_offset = key * op.key_rope.token_stride;
    if (m.causal) s.band = {.shift = s.kv_length - s.query_length, .right = 0};
    op.sequences.push_back(s);
  }
  attention(op);
  if (m.previous.defined()) merge(m, out, lse);
  from_float(out.data(), m.output.data(), m.output.dtype, static_cast<int64_t>(out.size()));
  from_float(lse.data(), m.lse.data(), ACL_FLOAT, static_cast<int64_t>(lse.size()));
}

// ---- AtbSelfAttentionPrefixEncoder: prefill of tokens whose prefix lies in the cache ----

struct PrefixEncoder {
  TensorView query, key, value, table, output;
  std::vector<int32_t> query_lengths, lengths;
  int64_t heads, kv_heads;
  float scale;

  int64_t dim() const { return query.sizes.back(0) / (query.rank() == 2 ? heads : 1); }
};

void check_prefix(const PrefixEncoder& p) {
  require_heads(p.heads, p.kv_heads);
  require_type(p.query, "query", kHalves);
  require(p.query.rank() == 2 || p.query.rank() == 3, ::atb::ERROR_INVALID_TENSOR_DIM_NUM, "query must have 2 or 3 dimensions.");
  require_shape(p.output, "attnOut", p.query.sizes);
  for (const TensorView* tensor : {&p.key, &p.value, &p.output}) require_type(*tensor, "key, value and attnOut", {p.query.dtype});
  const PagedCache keys = paged(p.key, "key", p.kv_heads, p.dim(), false);
  require_shape(p.value, "value", p.key.sizes);
  check_table(p.table, p.lengths, keys.block_size);
  require(p.query_lengths.size() == p.lengths.size() && sum(p.query_lengths) == p.query.sizes[0], ::atb::ERROR_INVALID_PARAM,
          "seqLen must sum to the tokens of query, one for each of kvSeqLen.");
  for (size_t b = 0; b < p.lengths.size(); ++b) {
    require(p.query_lengths[b] <= p.lengths[b], ::atb::ERROR_INVALID_PARAM, "a seqLen is larger than its kvSeqLen.");
  }
}

void run_prefix(const PrefixEncoder& p) {
  const PagedCache cache = paged(p.key, "key", p.kv_heads, p.dim(), false);
  check_blocks(p.table, p.lengths, cache);
  Attention op;
  op.heads = p.heads;
  op.kv_heads = p.kv_heads;
  op.scale = p.scale;
  op.query = p.query.data();
  op.query_dtype = op.output_dtype = p.query.dtype;
  op.query_token_stride = op.output_token_stride = p.heads * p.dim();
  op.query_head_stride = op.output_head_stride = p.dim();
  op.key = op.value = cache.keys;
  op.key.data = p.key.data();
  op.value.data = p.value.data();
  op.block_size = cache.block_size;
  op.output = p.output.data();
  int64_t token = 0;
  for (size_t b = 0; b < p.lengths.size(); token += p.query_lengths[b++]) {
    Sequence s;
    s.query_length = p.query_lengths[b];
    s.kv_length = p.lengths[b];
    s.query_offset = s.output_offset = token * op.query_token_stride;
    s.block_table = p.table.data_as<int32_t>() + static_cast<int64_t>(b) * p.table.sizes[1];
    s.band = {.shift = s.kv_length - s.query_length, .right = 0};
    op.sequences.push_back(s);
  }
  attention(op);
}

double pairs_of(const std::vector<int32_t>& queries, const std::vector<int32_t>& keys, int64_t heads) {
  double pairs = 0;
  for (size_t b = 0; b < keys.size(); ++b) pairs += static_cast<double>(queries[b]) * keys[b] * static_cast<double>(heads);
  return pairs;
}

enum PrefixMask : int { kNormCompress = 3, kCausal = 9 };

}  // namespace

}  // namespace emulator

using emulator::view_of;

extern "C" {

atb::Status AtbMLAGetWorkspaceSize(const aclTensor* q_nope, const aclTensor* q_rope, const aclTensor* ctkv, const aclTensor* k_rope,
                                   const aclTensor* block_tables, const aclTensor* context_lens, const aclTensor* mask,
                                   const aclTensor* q_seq_len, const aclTensor* qk_descale, const aclTensor* pv_descale,
                                   int32_t heads, float scale, int32_t kv_heads, int mask_type, int calc_type, uint8_t cache_mode,
                                   aclTensor* output, aclTensor* lse, uint64_t* workspace_size, atb::Operation** operation,
                                   atb::Context* context) {
  return emulator::prepare("AtbMLA", workspace_size, operation, context, [&]() -> emulator::ApiLaunch {
    emulator::require_a2();
    if (cache_mode == emulator::kInt8Nz || qk_descale != nullptr || pv_descale != nullptr) emulator::not_implemented("an int8 cache");
    if (mask != nullptr || mask_type == 1) emulator::not_implemented("a mask of drafted tokens");
    emulator::Mla m{view_of(q_nope), view_of(q_rope), view_of(ctkv), view_of(k_rope), view_of(block_tables), view_of(output),
                    calc_type == 2 ? view_of(lse) : emulator::TensorView{}, emulator::host_lengths(context_lens, "contextLens"),
                    {}, heads, kv_heads, scale, cache_mode == emulator::kNz};
    m.query_lengths = q_seq_len == nullptr ? std::vector<int32_t>(m.lengths.size(), 1) : emulator::host_lengths(q_seq_len, "qSeqLen");
    check_mla(m);
    const double pairs = emulator::pairs_of(m.query_lengths, m.lengths, m.heads);
    const double cached = static_cast<double>(emulator::sum(m.lengths) * (m.rank() + m.rope()) * 2);
    return {emulator::attention_work(pairs, static_cast<double>(2 * m.rank() + m.rope()), cached, emulator::bytes_of(m.output)),
            [m] { run_mla(m); }};
  });
}
atb::Status AtbMLA(void*, uint64_t, atb::Operation* operation, atb::Context* context) {
  return emulator::execute("AtbMLA", operation, context);
}

atb::Status AtbRingMLAGetWorkspaceSize(const aclTensor* query, const aclTensor* query_rope, const aclTensor* key,
                                       const aclTensor* key_rope, const aclTensor* value, const aclTensor* mask,
                                       const aclTensor* seq_len, const aclTensor* previous, const aclTensor* previous_lse,
                                       int32_t heads, int32_t kv_heads, float scale, int /*kernel_type*/, int mask_type,
                                       int input_layout, int calc_type, aclTensor* output, aclTensor* lse,
                                       uint64_t* workspace_size, atb::Operation** operation, atb::Context* context) {
  return emulator::prepare("AtbRingMLA", workspace_size, operation, context, [&]() -> emulator::ApiLaunch {
    emulator::require_a2();
    emulator::require(input_layout == 0, atb::ERROR_INVALID_PARAM, "inputLayout must be 0 (BSND).");
    emulator::require(mask_type == 0 || mask_type == 1, atb::ERROR_INVALID_PARAM, "maskType must be 0 (none) or 1 (triangle).");
    emulator::require(mask_type == 0 || mask != nullptr, atb::ERROR_INVALID_PARAM, "maskType 1 needs a mask.");
    const bool first = calc_type == 1;
    emulator::require(first || (previous != nullptr && previous_lse != nullptr), atb::ERROR_INVALID_PARAM,
                      "calcType 0 needs prevOut and prevLse.");
    std::vector<int32_t> lengths = emulator::host_lengths(seq_len, "seqLen");
    const bool both = seq_len->view.rank() == 2;  // queries, then keys
    const size_t batch = both ? lengths.size() / 2 : lengths.size();
    emulator::RingMla m{view_of(query), view_of(query_rope), view_of(key), view_of(key_rope), view_of(value),
                        first ? emulator::TensorView{} : view_of(previous), first ? emulator::TensorView{} : view_of(previous_lse),
                        view_of(output), view_of(lse), {lengths.begin(), lengths.begin() + static_cast<int64_t>(batch)},
                        {lengths.end() - static_cast<int64_t>(batch), lengths.end()}, heads, kv_heads, scale, mask_type == 1};
    check_ring(m);
    const double pairs = emulator::pairs_of(m.query_lengths, m.lengths, m.heads);
    return {emulator::attention_work(pairs, 320.0, emulator::bytes_of(m.query) + emulator::bytes_of(m.key) + emulator::bytes_of(m.value),
                                     emulator::bytes_of(m.output)),
            [m] { run_ring(m); }};
  });
}
atb::Status AtbRingMLA(void*, uint64_t, atb::Operation* operation, atb::Context* context) {
  return emulator::execute("AtbRingMLA", operation, context);
}

atb::Status AtbSelfAttentionPrefixEncoderGetWorkspaceSize(const aclTensor* query, const aclTensor* key, const aclTensor* value,
                                                          const aclTensor* block_tables, const aclTensor* mask,
                                                          const aclTensor* seq_len, const aclTensor* kv_seq_len,
                                                          const aclTensor* slopes, int mask_type, int32_t heads, int32_t kv_heads,
                                                          float scale, aclTensor* output, uint64_t* workspace_size,
                                                          atb::Operation** operation, atb::Context* context) {
  return emulator::prepare("AtbSelfAttentionPrefixEncoder", workspace_size, operation, context, [&]() -> emulator::ApiLaunch {
    emulator::require_a2();
    if (slopes != nullptr || (mask_type != emulator::kCausal && mask_type != emulator::kNormCompress)) {
      emulator::not_implemented("ALiBi masks");
    }
    emulator::require((mask_type == emulator::kCausal) == (mask == nullptr), atb::ERROR_INVALID_PARAM,
                      "a mask goes with maskType 3, and none with maskType 9.");
    emulator::PrefixEncoder p{view_of(query), view_of(key), view_of(value), view_of(block_tables), view_of(output),
                              emulator::host_lengths(seq_len, "seqLen"), emulator::host_lengths(kv_seq_len, "kvSeqLen"), heads,
                              kv_heads, scale};
    check_prefix(p);
    const double pairs = emulator::pairs_of(p.query_lengths, p.lengths, p.heads);
    return {emulator::attention_work(pairs, static_cast<double>(2 * p.dim()), emulator::bytes_of(p.query), emulator::bytes_of(p.output)),
            [p] { run_prefix(p); }};
  });
}
atb::Status AtbSelfAttentionPrefixEncoder(void*, uint64_t, atb::Operation* operation, atb::Context* context) {
  return emulator::execute("AtbSelfAttentionPrefixEncoder", operation, context);
}

}  // extern "C"
