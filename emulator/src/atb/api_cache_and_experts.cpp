// AtbPagedCacheLoad and AtbFusedAddTopkDiv; AtbMLAPreprocess is refused.
// Semantics: torch_npu's documents of npu_paged_cache_load and npu_fused_add_topk_div; the references of op-plugin's tests.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <numeric>

#include "atb/api.h"
#include "math/convert.h"

namespace emulator {

namespace {

// ---- tokens of sequences from a paged cache into one tensor ----

struct CacheLoad {
  TensorView key_cache, value_cache, table, lengths, key, value, starts;
  bool fractal, running_totals;
};

void check_load(const CacheLoad& c) {
  require_type(c.key_cache, "keyCache", {ACL_FLOAT16, ACL_BF16, ACL_INT8});
  require_type(c.value_cache, "valueCache", {c.key_cache.dtype});
  require_type(c.key, "key", {c.key_cache.dtype});
  require_type(c.value, "value", {c.key_cache.dtype});
  require_type(c.table, "blockTables", {ACL_INT32});
  require_type(c.lengths, "contextLens", {ACL_INT32});
  if (c.starts.defined()) {
    require_type(c.starts, "seqStarts", {ACL_INT32});
    require(c.starts.numel() >= c.table.sizes[0], ::atb::ERROR_INVALID_TENSOR_DIM, "seqStarts must have an element for each sequence.");
  }
  for (const TensorView* cache : {&c.key_cache, &c.value_cache}) {
    require(cache->rank() == 4, ::atb::ERROR_INVALID_TENSOR_DIM_NUM, "keyCache and valueCache must have 4 dimensions.");
    require(cache->numel() > 0, ::atb::ERROR_INVALID_TENSOR_SIZE, "keyCache and valueCache must not be empty.");
  }
  const int page_axis = c.fractal ? 2 : 1;
  require(c.key_cache.sizes[0] == c.value_cache.sizes[0] && c.key_cache.sizes[page_axis] == c.value_cache.sizes[page_axis],
          ::atb::ERROR_INVALID_TENSOR_DIM, "keyCache and valueCache must have the same blocks.");
  require(c.table.rank() == 2 && c.lengths.rank() == 1 && c.lengths.sizes[0] == c.table.sizes[0] + (c.running_totals ? 1 : 0),
          ::atb::ERROR_INVALID_TENSOR_DIM, "contextLens must have an element for each row of blockTables (one more for running totals).");
}

// One token's row of `width` elements from slot `offset` of a block.
void load_row(const TensorView& cache, bool fractal, int64_t block, int64_t offset, int64_t width, char* to) {
  const int64_t bytes = element_bits(cache.dtype) / 8, c0 = fractal ? 32 / bytes : width;
  const int64_t block_size = fractal ? cache.sizes[2] : cache.sizes[1];
  const char* from = cache.data_as<char>() + block * block_size * width * bytes;
  for (int64_t at = 0; at < width; at += c0) {
    std::memcpy(to + at * bytes, from + (at * block_size + offset * c0) * bytes, c0 * bytes);
  }
}

void load_sequence(const CacheLoad& c, int64_t batch, int64_t first_token, int64_t count) {
  const int64_t block_size = c.fractal ? c.key_cache.sizes[2] : c.key_cache.sizes[1];
  const int64_t skipped = c.starts.defined() ? c.starts.data_as<int32_t>()[batch] / block_size : 0;
  for (int64_t t = 0; t < count; ++t) {
    const int64_t entry = skipped + t / block_size;
    const int64_t block = entry >= 0 && entry < c.table.sizes[1] ? c.table.data_as<int32_t>()[batch * c.table.sizes[1] + entry] : -1;
    if (block < 0 || block >= c.key_cache.sizes[0]) {
      fail(kAicoreException, "blockTables[%lld][%lld] names block %lld, but the cache has %lld.", static_cast<long long>(batch),
           static_cast<long long>(entry), static_cast<long long>(block), static_cast<long long>(c.key_cache.sizes[0]));
    }
    for (const auto& [cache, rows] : {std::pair{&c.key_cache, &c.key}, std::pair{&c.value_cache, &c.value}}) {
      const int64_t width = cache->numel() / (cache->sizes[0] * block_size);
      const int64_t row_bytes = width * element_bits(cache->dtype) / 8;
      if ((first_token + t + 1) * width > rows->numel()) fail(kAicoreException, "contextLens ask for more tokens than key and value hold.");
      load_row(*cache, c.fractal, block, t % block_size, width, rows->data_as<char>() + (first_token + t) * row_bytes);
    }
  }
}

void load(const CacheLoad& c) {
  const auto* lengths = c.lengths.data_as<int32_t>();
  int64_t begin = 0;
  for (int64_t b = 0; b < c.table.sizes[0]; ++b) {
    const int64_t count = c.running_totals ? lengths[b + 1] - lengths[b] : lengths[b];
    load_sequence(c, b, begin, count);
    begin += count;
  }
}

// ---- experts of the best groups, with a bias for the choice only ----

struct TopkDiv {
  TensorView x, bias, mapping_count, mapping, y, indices;
  int64_t groups, kept_groups, best, k;
  bool normalizes, sigmoid;
  float scale;
};

void check_topk(const TopkDiv& p) {
  require_type(p.x, "x", {ACL_FLOAT16, ACL_BF16, ACL_FLOAT});
  require_type(p.bias, "addNum", {p.x.dtype});
  require(p.x.rank() == 2, ::atb::ERROR_INVALID_TENSOR_DIM_NUM, "x must be [tokens, experts].");
  const int64_t experts = p.x.sizes[1];
  require_shape(p.bias, "addNum", {experts});
  require(p.groups >= 1 && experts % p.groups == 0, ::atb::ERROR_INVALID_PARAM, "groupNum must divide the experts.");
  require(p.kept_groups >= 1 && p.kept_groups <= p.groups, ::atb::ERROR_INVALID_PARAM, "groupTopk must be 1 to groupNum.");
  require(p.best >= 1 && p.best <= experts / p.groups, ::atb::ERROR_INVALID_PARAM, "n must be 1 to the size of a group.");
  require(p.k >= 1 && p.k <= experts, ::atb::ERROR_INVALID_PARAM, "k must be 1 to the number of experts.");
  require_type(p.y, "y", {ACL_FLOAT});
  require_type(p.indices, "indices", {ACL_INT32});
  require_shape(p.y, "y", {p.x.sizes[0], p.k});
  require_shape(p.indices, "indices", p.y.sizes);
  if (!p.mapping.defined()) return;
  require_type(p.mapping_count, "mappingNum", {ACL_INT32});
  require_type(p.mapping, "mappingTable", {ACL_INT32});
  require_shape(p.mapping_count, "mappingNum", {experts});
  require(p.mapping.rank() == 2 && p.mapping.sizes[0] == experts, ::atb::ERROR_INVALID_TENSOR_DIM, "mappingTable must be [experts, copies].");
}

// Groups that are not among the best get the score 0.
void zero_other_groups(const TopkDiv& p, std::vector<float>& scores) {
  const int64_t size = static_cast<int64_t>(scores.size()) / p.groups;
  std::vector<float> sums(p.groups);
  for (int64_t group = 0; group < p.groups; ++group) {
    std::vector<float> members(scores.begin() + group * size, scores.begin() + (group + 1) * size);
    std::partial_sort(members.begin(), members.begin() + p.best, members.end(), std::greater<float>());
    sums[group] = std::accumulate(members.begin(), members.begin() + p.best, 0.0f);
  }
  std::vector<int64_t> order(p.groups);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return sums[a] > sums[b]; });
  for (int64_t i = p.kept_groups; i < p.groups; ++i) std::fill_n(scores.begin() + order[i] * size, size, 0.0f);
}

void run_topk(const TopkDiv& p) {
  const int64_t tokens = p.x.sizes[0], experts = p.x.sizes[1];
  std::vector<float> x(tokens * experts), bias(experts), scores(experts);
  to_float(p.x.data(), p.x.dtype, x.data(), tokens * experts);
  to_float(p.bias.data(), p.bias.dtype, bias.data(), experts);
  for (int64_t token = 0; token < tokens; ++token) {
    float* own = &x[token * experts];
    for (int64_t e = 0; e < experts; ++e) {
      if (p.sigmoid) own[e] = 1.0f / (1.0f + std::exp(-own[e]));
      scores[e] = own[e] + bias[e];
    }
    zero_other_groups(p, scores);
    std::vector<int64_t> order(experts);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return scores[a] > scores[b]; });
    float total = 0;
    for (int64_t i = 0; i < p.k; ++i) total += own[order[i]];
    for (int64_t i = 0; i < p.k; ++i) {
      p.y.data_as<float>()[token * p.k + i] = p.normalizes ? own[order[i]] / total * p.scale : own[order[i]];
      auto index = static_cast<int32_t>(order[i]);
      if (p.mapping.defined()) {
        const int64_t copy = token % std::max<int32_t>(1, p.mapping_count.data_as<int32_t>()[index]);
        if (copy >= p.mapping.sizes[1]) fail(kAicoreException, "mappingNum has more copies than mappingTable has columns.");
        index = p.mapping.data_as<int32_t>()[index * p.mapping.sizes[1] + copy];
      }
      p.indices.data_as<int32_t>()[token * p.k + i] = index;
    }
  }
}

constexpr int kSigmoid = 8;  // atb::infer::ACTIVATION_SIGMOID

}  // namespace

}  // namespace emulator

using emulator::view_of;

extern "C" {

atb::Status AtbPagedCacheLoadGetWorkspaceSize(const aclTensor* key_cache, const aclTensor* value_cache, const aclTensor* block_tables,
                                              const aclTensor* context_lens, const aclTensor* key, const aclTensor* value,
                                              const aclTensor* seq_starts, int8_t cache_format, bool running_totals, bool has_starts,
                                              uint64_t* workspace_size, atb::Operation** operation, atb::Context* context) {
  return emulator::prepare("AtbPagedCacheLoad", workspace_size, operation, context, [&]() -> emulator::ApiLaunch {
    emulator::require(emulator::on_a2_or_a3(), atb::ERROR_INVALID_PARAM, "supported on Atlas A2 and A3 only.");
    const emulator::CacheLoad c{view_of(key_cache), view_of(value_cache), view_of(block_tables), view_of(context_lens), view_of(key),
                                view_of(value), has_starts ? view_of(seq_starts) : emulator::TensorView{}, cache_format == 0,
                                running_totals};
    check_load(c);
    const double bytes = emulator::bytes_of(c.key) + emulator::bytes_of(c.value);
    return {{.read_bytes = bytes, .written_bytes = bytes}, [c] { load(c); }};
  });
}
atb::Status AtbPagedCacheLoad(void*, uint64_t, atb::Operation* operation, atb::Context* context) {
  return emulator::execute("AtbPagedCacheLoad", operation, context);
}

atb::Status AtbFusedAddTopkDivGetWorkspaceSize(const aclTensor* x, const aclTensor* add_num, const aclTensor* mapping_num,
                                               const aclTensor* mapping_table, uint32_t groups, uint32_t kept_groups, uint32_t n,
                                               uint32_t k, int activation, bool normalizes, float scale, bool maps_experts,
                                               aclTensor* y, aclTensor* indices, uint64_t* workspace_size,
                                               atb::Operation** operation, atb::Context* context) {
  return emulator::prepare("AtbFusedAddTopkDiv", workspace_size, operation, context, [&]() -> emulator::ApiLaunch {
    emulator::require(emulator::on_a2_or_a3(), atb::ERROR_INVALID_PARAM, "supported on Atlas A2 and A3 only.");
    emulator::require(activation == emulator::kSigmoid, atb::ERROR_INVALID_PARAM, "activationType must be ACTIVATION_SIGMOID.");
    const emulator::TopkDiv p{view_of(x), view_of(add_num), maps_experts ? view_of(mapping_num) : emulator::TensorView{},
                              maps_experts ? view_of(mapping_table) : emulator::TensorView{}, view_of(y), view_of(indices), groups,
                              kept_groups, n, k, normalizes, true, scale};
    check_topk(p);
    return {{.vector_flops = 10.0 * static_cast<double>(p.x.numel()), .read_bytes = emulator::bytes_of(p.x),
             .written_bytes = emulator::bytes_of(p.y) + emulator::bytes_of(p.indices)},
            [p] { run_topk(p); }};
  });
}
atb::Status AtbFusedAddTopkDiv(void*, uint64_t, atb::Operation* operation, atb::Context* context) {
  return emulator::execute("AtbFusedAddTopkDiv", operation, context);
}

// Its arguments do not matter: it is known by name, and every call is refused.
atb::Status AtbMLAPreprocessGetWorkspaceSize() {
  return emulator::atb_guarded("AtbMLAPreprocess", [] {
    emulator::reject(atb::ERROR_INVALID_PARAM, "ATB has this operation, but the emulator does not implement it yet.");
  });
}
atb::Status AtbMLAPreprocess(void*, uint64_t, atb::Operation* operation, atb::Context* context) {
  return emulator::execute("AtbMLAPreprocess", operation, context);
}

}  // extern "C"
