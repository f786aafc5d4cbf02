// MlaProlog: what multi-head latent attention does before attention itself, from hidden states to queries and caches.
// Semantics: hicann/ops-transformer, attention/mla_prolog_v{2,3}/docs; torch_npu's documents of npu_mla_prolog_v{2,3}.
//
// Implemented: bfloat16; int8 weights, of the query's up-projection alone or of all; int8 caches with a scale for each
// channel or for the tensor. Scales for tiles of a token, blockwise cache modes and fp8 are refused as not implemented.
#include <algorithm>
#include <cmath>
#include <string>

#include "aclnn/kernels/float_values.h"
#include "aclnn/kernels/mla_projection.h"
#include "aclnn_arguments.h"
#include "math/convert.h"
#include "math/gemm.h"
#include "math/rope.h"

namespace emulator::aclnn {

namespace {

struct MlaProlog {
  const TensorView &token_x, &weight_dq, &weight_uq_qr, &weight_uk, &weight_dkv_kr, &gamma_cq, &gamma_ckv, &sin, &cos;
  const TensorView &cache_index, &kv_cache, &kr_cache;
  const TensorView &scale_x, &scale_dq, &scale_uq_qr, &scale_dkv_kr, &scale_ckv, &scale_ckr, &smooth_cq;
  double epsilon_cq, epsilon_ckv;
  const std::string& cache_mode;
  const TensorView &query, &query_rope, &scale_query;
  double query_factor = 1.0, key_factor = 1.0;
  const TensorView *query_norm = nullptr, *scale_query_norm = nullptr;

  int64_t hidden() const { return token_x.sizes.back(0); }
  int64_t tokens() const { return hidden() == 0 ? 0 : token_x.numel() / hidden(); }
  int64_t heads() const { return weight_uk.sizes[0]; }
  int64_t head_dim() const { return weight_uk.sizes[1]; }
  int64_t kv_rank() const { return weight_uk.sizes[2]; }
  int64_t query_rank() const { return weight_dq.sizes[1]; }
  int64_t rope_dim() const { return sin.sizes.back(0); }
  bool all_int8() const { return token_x.dtype == ACL_INT8; }
  bool quantizes_query() const { return query.dtype == ACL_INT8; }
};

// ---- phase 1 ----

void check_one_of(int64_t value, const char* name, std::initializer_list<int64_t> accepted) {
  std::string list;
  for (const int64_t each : accepted) {
    if (value == each) return;
    list += (list.empty() ? "" : ", ") + std::to_string(each);
  }
  require(false, "%s is %lld, but must be one of %s.", name, static_cast<long long>(value), list.c_str());
}

// The types of one column of the documents' table of scenarios.
void check_types(const MlaProlog& p) {
  require_dtype(p.token_x, "tokenX", {ACL_BF16, ACL_INT8});
  const aclDataType projected = p.all_int8() ? ACL_INT8 : ACL_BF16;
  require_dtype(p.weight_dq, "weightDq", {projected});
  require_dtype(p.weight_dkv_kr, "weightDkvKr", {projected});
  if (p.all_int8()) {
    require_dtype(p.weight_uq_qr, "weightUqQr", {ACL_INT8});
  } else {
    require_dtype(p.weight_uq_qr, "weightUqQr", {ACL_BF16, ACL_INT8});
  }
  for (const TensorView* plain : {&p.weight_uk, &p.gamma_cq, &p.gamma_ckv, &p.sin, &p.cos, &p.query_rope}) {
    require_dtype(*plain, "weightUk, the gammas, ropeSin, ropeCos and queryRopeOut", {ACL_BF16});
  }
  require_dtype(p.kv_cache, "kvCacheRef", {ACL_BF16, ACL_INT8});
  const bool int8_cache = p.kv_cache.dtype == ACL_INT8;
  require(!int8_cache || p.weight_uq_qr.dtype == ACL_INT8, "kvCacheRef is int8, which goes with an int8 weightUqQr only.");
  require_dtype(p.kr_cache, "krCacheRef", {int8_cache && !p.all_int8() ? ACL_INT8 : ACL_BF16});
  require_dtype(p.query, "queryOut", {int8_cache && p.all_int8() ? ACL_INT8 : ACL_BF16});
}

void check_scale(const TensorView& scale, const char* name, bool needed, const Dims& sizes) {
  if (!needed) return;
  require(scale.defined(), "%s must not be null with these types.", name);
  require_dtype(scale, name, {ACL_FLOAT});
  require_sizes(scale, name, sizes);
}

void check_scales(const MlaProlog& p) {
  const bool int8_up = p.weight_uq_qr.dtype == ACL_INT8, int8_cache = p.kv_cache.dtype == ACL_INT8;
  check_scale(p.scale_x, "dequantScaleX", p.all_int8(), {p.tokens(), 1});
  check_scale(p.scale_dq, "dequantScaleWDq", p.all_int8(), {1, p.query_rank()});
  check_scale(p.scale_uq_qr, "dequantScaleWUqQr", int8_up, {1, p.weight_uq_qr.sizes[1]});
  check_scale(p.scale_dkv_kr, "dequantScaleWDkvKr", p.all_int8(), {1, p.weight_dkv_kr.sizes[1]});
  check_scale(p.smooth_cq, "smoothScalesCq", int8_up && p.smooth_cq.defined(), {1, p.query_rank()});
  if (int8_cache) {
    require(p.scale_ckv.defined(), "quantScaleCkv must not be null with an int8 kvCacheRef.");
    require(p.scale_ckv.numel() == 1 || p.scale_ckv.numel() == p.kv_rank(), "quantScaleCkv has %lld elements, but must have 1 or %lld.",
            static_cast<long long>(p.scale_ckv.numel()), static_cast<long long>(p.kv_rank()));
  }
  check_scale(p.scale_ckr, "quantScaleCkr", p.kr_cache.dtype == ACL_INT8, {1, p.rope_dim()});
}

void check_shapes(const MlaProlog& p) {
  require_rank(p.token_x, "tokenX", 2, 3);
  const auto with = [&](std::initializer_list<int64_t> last) {  // tokenX's leading dimensions, then these
    Dims dims(p.token_x.sizes.data(), p.token_x.rank() - 1);
    for (const int64_t size : last) dims.push_back(size);
    return dims;
  };
  require_rank(p.weight_dq, "weightDq", 2, 2);
  require_rank(p.weight_uk, "weightUk", 3, 3);
  require_sizes(p.weight_dq, "weightDq", {p.hidden(), p.query_rank()});
  require_sizes(p.weight_uq_qr, "weightUqQr", {p.query_rank(), p.heads() * (p.head_dim() + p.rope_dim())});
  require_sizes(p.weight_dkv_kr, "weightDkvKr", {p.hidden(), p.kv_rank() + p.rope_dim()});
  require_sizes(p.gamma_cq, "rmsnormGammaCq", {p.query_rank()});
  require_sizes(p.gamma_ckv, "rmsnormGammaCkv", {p.kv_rank()});
  require_sizes(p.sin, "ropeSin", with({p.rope_dim()}));
  require_sizes(p.cos, "ropeCos", with({p.rope_dim()}));
  require_sizes(p.query, "queryOut", with({p.heads(), p.kv_rank()}));
  require_sizes(p.query_rope, "queryRopeOut", with({p.heads(), p.rope_dim()}));
  if (p.cache_mode == "PA_BSND" || p.cache_mode == "PA_NZ") {
    require_dtype(p.cache_index, "cacheIndex", {ACL_INT64});
    require_sizes(p.cache_index, "cacheIndex", with({}));
    require_rank(p.kv_cache, "kvCacheRef", 4, 4);
    require_sizes(p.kr_cache, "krCacheRef", {p.kv_cache.sizes[0], p.kv_cache.sizes[1], p.kv_cache.sizes[2], p.rope_dim()});
    require(p.kv_cache.sizes[1] % 16 == 0 && p.kv_cache.sizes[1] <= 1024,
            "kvCacheRef has blocks of %lld, but their size must be a multiple of 16 up to 1024.",
            static_cast<long long>(p.kv_cache.sizes[1]));
  } else {
    require_sizes(p.kv_cache, "kvCacheRef", with({1, p.kv_rank()}));
    require_sizes(p.kr_cache, "krCacheRef", with({1, p.rope_dim()}));
  }
  require(p.kv_cache.sizes.back(0) == p.kv_rank() && p.kv_cache.sizes.back(1) == 1,
          "kvCacheRef %s must end in [1, %lld].", to_string(p.kv_cache.sizes).c_str(), static_cast<long long>(p.kv_rank()));
}

void check_documented_sizes(const MlaProlog& p, std::initializer_list<int64_t> hidden, std::initializer_list<int64_t> query_rank,
                            std::initializer_list<int64_t> head_dim) {
  check_one_of(p.hidden(), "the hidden size (He)", hidden);
  check_one_of(p.query_rank(), "the query's rank (Hcq)", query_rank);
  check_one_of(p.heads(), "the number of heads (N)", {1, 2, 4, 8, 16, 32, 64, 128});
  check_one_of(p.head_dim(), "the head size (D)", head_dim);
  check_one_of(p.kv_rank(), "the keys' rank (Hckv)", {512});
  check_one_of(p.rope_dim(), "the rotary size (Dr)", {64});
}

void check_prolog(const MlaProlog& p) {
  check_types(p);
  check_shapes(p);
  check_scales(p);
  if (!p.quantizes_query()) return;
  require(p.scale_query.defined(), "dequantScaleQNopeOut must not be null with an int8 queryOut.");
  require_dtype(p.scale_query, "dequantScaleQNopeOut", {ACL_FLOAT});
  require_sizes(p.scale_query, "dequantScaleQNopeOut", {p.tokens(), p.heads(), 1});
}

// ---- phase 2 ----

// gamma * row / rms * factor for rows of which `width` values count; returns them densely.
std::vector<float> normalized(const std::vector<float>& rows, int64_t stride, int64_t width, const TensorView& gamma, double epsilon,
                              double factor) {
  const std::vector<float> weights = float_values(gamma);
  const auto count = static_cast<int64_t>(rows.size()) / stride;
  std::vector<float> result(count * width);
  for (int64_t row = 0; row < count; ++row) {
    const float* x = &rows[row * stride];
    double squares = 0;
    for (int64_t i = 0; i < width; ++i) squares += static_cast<double>(x[i]) * x[i];
    const auto scale = static_cast<float>(factor / std::sqrt(squares / static_cast<double>(width) + epsilon));
    for (int64_t i = 0; i < width; ++i) result[row * width + i] = x[i] * scale * weights[i];
  }
  return result;
}

// The last rope_dim values of each of `parts` equal parts of a row, rotated: [tokens, parts, rope_dim].
std::vector<float> rotated(const MlaProlog& p, const std::vector<float>& rows, int64_t parts) {
  const std::vector<float> cos = float_values(p.cos), sin = float_values(p.sin);
  const int64_t dim = p.rope_dim(), tokens = p.tokens();
  const int64_t part = tokens == 0 ? 0 : static_cast<int64_t>(rows.size()) / (tokens * parts);
  std::vector<float> result(tokens * parts * dim);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t h = 0; h < parts; ++h) {
      rotate_row(RopeStyle::kInterleavedHalf, &rows[(t * parts + h + 1) * part - dim], &cos[t * dim], &sin[t * dim], dim,
                 &result[(t * parts + h) * dim]);
    }
  }
  return result;
}

// The heads' first head_dim values times weight_uk: [tokens, heads, kv_rank].
std::vector<float> up_projected(const MlaProlog& p, const std::vector<float>& rows) {
  const int64_t part = p.head_dim() + p.rope_dim(), row = p.heads() * part;
  const ProjectionInput rounded = rounded_rows(rows, row);
  std::vector<float> result(p.tokens() * p.heads() * p.kv_rank());
  for (int64_t h = 0; h < p.heads() && p.tokens() > 0; ++h) {
    Gemm product;
    product.m = p.tokens();
    product.n = p.kv_rank();
    product.k = p.head_dim();
    product.a = rounded.bf16.data() + h * part;
    product.a_dtype = ACL_BF16;
    product.a_row_stride = row;
    product.b = row_major(p.weight_uk.data_as<uint16_t>() + h * p.head_dim() * p.kv_rank(), ACL_BF16, p.kv_rank());
    product.c = result.data() + h * p.kv_rank();
    product.c_dtype = ACL_FLOAT;
    product.c_row_stride = p.heads() * p.kv_rank();
    gemm(product);
  }
  round_to_bf16(result);
  return result;
}

// Each token's `width` values into its slot of a cache, rounded or quantized to the cache's type.
void write_cache(const MlaProlog& p, const TensorView& cache, const std::vector<float>& values, int64_t width) {
  const bool paged = p.cache_mode.starts_with("PA_");
  const std::vector<int64_t> slots = paged ? int_values(p.cache_index) : std::vector<int64_t>{};
  const int64_t block = paged ? cache.sizes[1] : 1, bytes = element_bits(cache.dtype) / 8;
  const int64_t slot_count = paged ? cache.sizes[0] * block : p.tokens();
  const int64_t run = p.cache_mode == "PA_NZ" ? 32 / bytes : width;  // values that lie side by side
  for (int64_t t = 0; t < p.tokens() && slot_count > 0; ++t) {
    const int64_t slot = paged ? slots[t] : t;
    if (slot < 0 || slot >= slot_count) {
      fail(kAicoreException, "cacheIndex has %lld, but the cache has %lld slots.", static_cast<long long>(slot),
           static_cast<long long>(slot_count));
    }
    for (int64_t at = 0; at < width; at += run) {
      const int64_t target = p.cache_mode == "PA_NZ" ? slot / block * block * width + at * block + slot % block * run : slot * width + at;
      from_float(&values[t * width + at], cache.data_as<char>() + target * bytes, cache.dtype, run);
    }
  }
}

void multiply_columns(std::vector<float>& values, int64_t width, const TensorView& scale) {
  const std::vector<float> factors = float_values(scale);
  for (size_t i = 0; i < values.size(); ++i) values[i] *= factors[factors.size() == 1 ? 0 : i % width];
}

void run_keys(const MlaProlog& p, const ProjectionInput& x) {
  const std::vector<float> rows = project(x, p.weight_dkv_kr, p.scale_dkv_kr);
  std::vector<float> keys = normalized(rows, p.kv_rank() + p.rope_dim(), p.kv_rank(), p.gamma_ckv, p.epsilon_ckv, p.key_factor);
  if (p.kv_cache.dtype == ACL_INT8) multiply_columns(keys, p.kv_rank(), p.scale_ckv);
  write_cache(p, p.kv_cache, keys, p.kv_rank());
  std::vector<float> rope = rotated(p, rows, 1);
  if (p.kr_cache.dtype == ACL_INT8) multiply_columns(rope, p.rope_dim(), p.scale_ckr);
  write_cache(p, p.kr_cache, rope, p.rope_dim());
}

// The query in int8, a scale for each token and head; the rotary part is brought to the same scale times the keys'.
void store_quantized_query(const MlaProlog& p, const std::vector<float>& query, std::vector<float>& rope) {
  const ProjectionInput quantized = quantized_rows(query, p.kv_rank(), {});
  std::copy(quantized.int8.begin(), quantized.int8.end(), p.query.data_as<int8_t>());
  store_values(p.scale_query, quantized.row_scale);
  round_to_bf16(rope);
  const float key_scale = float_values(p.scale_ckv)[0];
  for (size_t i = 0; i < rope.size(); ++i) rope[i] *= key_scale / quantized.row_scale[i / p.rope_dim()];
}

void run(const MlaProlog& p) {
  if (p.tokens() == 0) return;
  const ProjectionInput x = projection_input(p.token_x, p.scale_x);
  const std::vector<float> down = project(x, p.weight_dq, p.scale_dq);
  const std::vector<float> norm = normalized(down, p.query_rank(), p.query_rank(), p.gamma_cq, p.epsilon_cq, p.query_factor);
  const ProjectionInput latent = p.weight_uq_qr.dtype == ACL_INT8 ? quantized_rows(norm, p.query_rank(), float_values(p.smooth_cq))
                                                                   : rounded_rows(norm, p.query_rank());
  if (p.query_norm != nullptr && p.query_norm->defined() && p.query_norm->numel() > 0) {
    if (p.query_norm->dtype == ACL_INT8) {
      std::copy(latent.int8.begin(), latent.int8.end(), p.query_norm->data_as<int8_t>());
      store_values(*p.scale_query_norm, latent.row_scale);
    } else {
      store_values(*p.query_norm, norm);
    }
  }
  const std::vector<float> heads = project(latent, p.weight_uq_qr, p.scale_uq_qr);
  const std::vector<float> query = up_projected(p, heads);
  std::vector<float> rope = rotated(p, heads, p.heads());
  if (p.quantizes_query()) {
    store_quantized_query(p, query, rope);
  } else {
    store_values(p.query, query);
  }
  store_values(p.query_rope, rope);
  run_keys(p, x);
}

Work work_of(const MlaProlog& p) {
  const auto tokens = static_cast<double>(p.tokens());
  double elements = 0, bytes = 0;
  for (const TensorView* weight : {&p.weight_dq, &p.weight_uq_qr, &p.weight_uk, &p.weight_dkv_kr}) {
    elements += static_cast<double>(weight->numel());
    bytes += static_cast<double>(size_in_bytes(weight->sizes, weight->dtype));
  }
  Work work;
  work.cube_flops = 2.0 * tokens * elements;
  work.vector_flops = 10.0 * tokens * static_cast<double>(p.query_rank() + p.heads() * p.kv_rank());
  work.read_bytes = bytes + static_cast<double>(size_in_bytes(p.token_x.sizes, p.token_x.dtype));
  work.written_bytes = static_cast<double>(size_in_bytes(p.query.sizes, p.query.dtype));
  return work;
}

MlaProlog prolog_of(const MlaPrologV2WeightNzArgs& a) {
  return {a.tokenX, a.weightDq, a.weightUqQr, a.weightUk, a.weightDkvKr, a.rmsnormGammaCq, a.rmsnormGammaCkv, a.ropeSin,
          a.ropeCos, a.cacheIndex, a.kvCacheRef, a.krCacheRef, a.dequantScaleXOptional, a.dequantScaleWDqOptional,
          a.dequantScaleWUqQrOptional, a.dequantScaleWDkvKrOptional, a.quantScaleCkvOptional, a.quantScaleCkrOptional,
          a.smoothScalesCqOptional, a.rmsnormEpsilonCq, a.rmsnormEpsilonCkv, a.cacheModeOptional, a.queryOut, a.queryRopeOut,
          a.dequantScaleQNopeOutOptional};
}
MlaProlog prolog_of(const MlaPrologV3WeightNzArgs& a) {
  return {a.tokenX, a.weightDq, a.weightUqQr, a.weightUk, a.weightDkvKr, a.rmsnormGammaCq, a.rmsnormGammaCkv, a.ropeSin,
          a.ropeCos, a.cacheIndexOptional, a.kvCacheRef, a.krCacheRef, a.dequantScaleXOptional, a.dequantScaleWDqOptional,
          a.dequantScaleWUqQrOptional, a.dequantScaleWDkvKrOptional, a.quantScaleCkvOptional, a.quantScaleCkrOptional,
          a.smoothScalesCqOptional, a.rmsnormEpsilonCq, a.rmsnormEpsilonCkv, a.cacheModeOptional, a.queryOut, a.queryRopeOut,
          a.dequantScaleQNopeOutOptional, a.qcQrScale, a.kcScale, &a.queryNormOutOptional, &a.dequantScaleQNormOutOptional};
}

enum CacheQuantMode : int64_t { kNone = 0, kByTensor = 1, kByChannel = 2, kByTile = 3 };

// The modes must name the scenario that the types make.
void check_modes(const MlaPrologV3WeightNzArgs& a) {
  if (a.kvCacheQuantMode == kByTile || a.ckvkrRepoMode != 0 || a.quantScaleRepoMode != 0 || a.weightQuantMode > 2) {
    fail(kRuntimeError, "the emulator does not implement weightQuantMode %lld with kvCacheQuantMode %lld yet.",
         static_cast<long long>(a.weightQuantMode), static_cast<long long>(a.kvCacheQuantMode));
  }
  const int64_t weights = a.tokenX.dtype == ACL_INT8 ? 2 : a.weightUqQr.dtype == ACL_INT8 ? 1 : 0;
  require(a.weightQuantMode == weights, "weightQuantMode is %lld, but the types of tokenX and weightUqQr make it %lld.",
          static_cast<long long>(a.weightQuantMode), static_cast<long long>(weights));
  const int64_t cache = a.kvCacheRef.dtype != ACL_INT8 ? kNone : weights == 2 ? kByTensor : kByChannel;
  require(a.kvCacheQuantMode == cache, "kvCacheQuantMode is %lld, but the types make it %lld.",
          static_cast<long long>(a.kvCacheQuantMode), static_cast<long long>(cache));
  const int64_t query = cache == kByTensor ? 1 : 0;
  require(a.queryQuantMode == query, "queryQuantMode is %lld, but the types make it %lld.",
          static_cast<long long>(a.queryQuantMode), static_cast<long long>(query));
}

}  // namespace

ACLNN_CHECK(MlaPrologV2WeightNz) {
  require(a.cacheModeOptional == "PA_BSND" || a.cacheModeOptional == "PA_NZ", "cacheMode is \"%s\", but must be \"PA_BSND\" or \"PA_NZ\".",
          a.cacheModeOptional.c_str());
  const MlaProlog p = prolog_of(a);
  check_prolog(p);
  check_documented_sizes(p, {7168}, {1536}, {128});
  check_one_of(a.kvCacheRef.sizes[1], "the block size", {16, 128});
}
ACLNN_KERNEL(MlaPrologV2WeightNz) { run(prolog_of(a)); }
ACLNN_WORK(MlaPrologV2WeightNz) { return work_of(prolog_of(a)); }

ACLNN_CHECK(MlaPrologV3WeightNz) {
  const std::string& mode = a.cacheModeOptional;
  if (mode.starts_with("PA_BLK_")) fail(kRuntimeError, "the emulator does not implement cacheMode \"%s\" yet.", mode.c_str());
  require(mode == "PA_BSND" || mode == "PA_NZ" || mode == "BSND" || mode == "TND",
          "cacheMode is \"%s\", but must be PA_BSND, PA_NZ, PA_BLK_BSND, PA_BLK_NZ, BSND or TND.", mode.c_str());
  require(mode != "BSND" || a.tokenX.rank() == 3, "cacheMode BSND goes with a tokenX of three dimensions.");
  require(mode != "TND" || a.tokenX.rank() == 2, "cacheMode TND goes with a tokenX of two dimensions.");
  check_modes(a);
  const MlaProlog p = prolog_of(a);
  check_prolog(p);
  check_documented_sizes(p, {1024, 2048, 3072, 4096, 5120, 6144, 7168, 7680, 8192}, {1536, 2048}, {128, 192});
}
ACLNN_KERNEL(MlaPrologV3WeightNz) { run(prolog_of(a)); }
ACLNN_WORK(MlaPrologV3WeightNz) { return work_of(prolog_of(a)); }

}  // namespace emulator::aclnn
