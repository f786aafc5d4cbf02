// KvRmsNormRopeCache: the latent half of a row normalized, the rotary half rotated, both written into their caches.
// Semantics: torch_npu's document of npu_kv_rmsnorm_rope_cache.
//
// Implemented: modes Norm, PA (PA_BNSD), PA_NZ and, a block at a time, PA_BLK_BNSD and PA_BLK_NZ; int8 caches with a
// scale for each channel.
#include <cmath>
#include <string_view>
#include <vector>

#include "aclnn/kernels/float_values.h"
#include "aclnn_arguments.h"
#include "math/convert.h"
#include "math/rope.h"

namespace emulator::aclnn {

namespace {

constexpr int64_t kLatent = 512, kRotary = 64;

struct KvRope {
  const TensorView &kv, &gamma, &cos, &sin, &index, &rope_cache, &latent_cache, &rope_scale, &latent_scale, &rope_offset, &latent_offset;
  double epsilon;
  std::string_view mode;
  bool outputs;
  const TensorView &rope_out, &latent_out;

  int64_t batch() const { return kv.sizes[0]; }
  int64_t length() const { return kv.sizes[2]; }
  int64_t tokens() const { return batch() * length(); }
  bool paged() const { return mode.starts_with("PA"); }
  bool by_block() const { return mode.starts_with("PA_BLK"); }
  bool fractal() const { return mode.ends_with("NZ"); }
};

bool given(const TensorView& tensor) { return tensor.defined() && tensor.numel() > 0; }

void check_cache(const KvRope& k, const TensorView& cache, const char* name, const TensorView& scale, int64_t width) {
  require_rank(cache, name, 4, 4);
  const aclDataType dtype = given(scale) ? ACL_INT8 : k.kv.dtype;
  require_dtype(cache, name, {dtype});
  require(cache.sizes[3] == width, "%s has a last dimension of %lld, but must have %lld.", name, static_cast<long long>(cache.sizes[3]),
          static_cast<long long>(width));
  if (given(scale)) {
    require_dtype(scale, "kRopeScale and cKvScale", {ACL_FLOAT});
    require(scale.numel() == width, "the scale of %s has %lld elements, but must have %lld.", name, static_cast<long long>(scale.numel()),
            static_cast<long long>(width));
  }
  if (k.paged()) {
    require(cache.sizes[2] == 1, "%s must be [blocks, block size, 1, %lld].", name, static_cast<long long>(width));
  } else {
    require(cache.sizes[0] == k.batch() && cache.sizes[1] == 1 && cache.sizes[2] >= k.length(),
            "%s must be [%lld, 1, at least %lld, %lld].", name, static_cast<long long>(k.batch()), static_cast<long long>(k.length()),
            static_cast<long long>(width));
  }
}

void check(const KvRope& k) {
  require_rank(k.kv, "kv", 4, 4);
  require_dtype(k.kv, "kv", {ACL_FLOAT16, ACL_BF16});
  require_sizes(k.kv, "kv", {k.batch(), 1, k.length(), kLatent + kRotary});
  require_same_dtype(k.gamma, "gamma", k.kv, "kv");
  require_sizes(k.gamma, "gamma", {kLatent});
  for (const TensorView* table : {&k.cos, &k.sin}) {
    require(table->defined(), "cos and sin must not be null.");
    require_same_dtype(*table, "cos and sin", k.kv, "kv");
    require_sizes(*table, "cos and sin", {k.batch(), 1, k.length(), kRotary});
  }
  require_dtype(k.index, "index", {ACL_INT64});
  const bool known = k.mode == "Norm" || k.mode == "PA" || k.mode == "PA_BNSD" || k.mode == "PA_NZ" || k.mode == "PA_BLK_BNSD" || k.mode == "PA_BLK_NZ";
  require(known, "cacheMode must be Norm, PA, PA_BNSD, PA_NZ, PA_BLK_BNSD or PA_BLK_NZ.");
  require(given(k.rope_scale) == given(k.latent_scale), "kRopeScale and cKvScale must both be given or both be null.");
  require(!given(k.rope_offset) && !given(k.latent_offset), "kRopeOffset and cKvOffset are not supported: they must be null.");
  check_cache(k, k.rope_cache, "kCache", k.rope_scale, kRotary);
  check_cache(k, k.latent_cache, "ckvCache", k.latent_scale, kLatent);
  const int64_t block = k.paged() ? k.rope_cache.sizes[1] : 1;
  const int64_t expected = k.by_block() ? k.batch() * ((k.length() + block - 1) / block) : k.tokens();
  require(k.index.numel() == expected, "index has %lld elements, but must have %lld.", static_cast<long long>(k.index.numel()),
          static_cast<long long>(expected));
}

// Which slot of the cache token t goes to, -1 for none.
int64_t slot_of(const KvRope& k, const std::vector<int64_t>& index, int64_t token) {
  const int64_t b = token / k.length(), at = token % k.length();
  if (!k.paged()) return index[token] < 0 ? -1 : b * k.rope_cache.sizes[2] + index[token];
  if (!k.by_block()) return index[token];
  const int64_t block = k.rope_cache.sizes[1], blocks = (k.length() + block - 1) / block;
  const int64_t begin = index[b * blocks + at / block];
  return begin < 0 ? -1 : begin / block * block + at % block;
}

void write(const KvRope& k, const TensorView& cache, int64_t width, const TensorView& scale, const std::vector<float>& rows) {
  const std::vector<int64_t> index = int_values(k.index);
  const std::vector<float> factors = float_values(scale);
  const int64_t bytes = element_bits(cache.dtype) / 8, run = k.fractal() ? 32 / bytes : width;
  const int64_t block = k.paged() ? cache.sizes[1] : cache.sizes[2], slots = cache.sizes[0] * block;
  std::vector<float> moved(width);
  for (int64_t t = 0; t < k.tokens(); ++t) {
    const int64_t slot = slot_of(k, index, t);
    if (slot < 0) continue;
    if (slot >= slots) fail(kAicoreException, "index has %lld, but the cache has %lld slots.", static_cast<long long>(slot), static_cast<long long>(slots));
    for (int64_t i = 0; i < width; ++i) moved[i] = rows[t * width + i] * (factors.empty() ? 1.0f : factors[i]);
    for (int64_t at = 0; at < width; at += run) {
      const int64_t target = k.fractal() ? slot / block * block * width + at * block + slot % block * run : slot * width + at;
      from_float(&moved[at], cache.data_as<char>() + target * bytes, cache.dtype, run);
    }
  }
}

void run(const KvRope& k) {
  const std::vector<float> kv = float_values(k.kv), gamma = float_values(k.gamma), cos = float_values(k.cos), sin = float_values(k.sin);
  std::vector<float> latent(k.tokens() * kLatent), rotary(k.tokens() * kRotary);
  for (int64_t t = 0; t < k.tokens(); ++t) {
    const float* row = &kv[t * (kLatent + kRotary)];
    double squares = 0;
    for (int64_t i = 0; i < kLatent; ++i) squares += static_cast<double>(row[i]) * row[i];
    const auto rstd = static_cast<float>(1.0 / std::sqrt(squares / kLatent + k.epsilon));
    for (int64_t i = 0; i < kLatent; ++i) latent[t * kLatent + i] = row[i] * rstd * gamma[i];
    rotate_row(RopeStyle::kInterleavedHalf, row + kLatent, &cos[t * kRotary], &sin[t * kRotary], kRotary, &rotary[t * kRotary]);
  }
  write(k, k.rope_cache, kRotary, k.rope_scale, rotary);
  write(k, k.latent_cache, kLatent, k.latent_scale, latent);
  if (!k.outputs) return;
  store_values(k.rope_out, rotary);
  store_values(k.latent_out, latent);
}

template <typename Args>
KvRope rope_of(const Args& a) {
  return {a.kv, a.gamma, a.cos, a.sin, a.index, a.kCacheRef, a.ckvCacheRef, a.kRopeScaleOptional, a.cKvScaleOptional,
          a.kRopeOffsetOptional, a.cKvOffsetOptional, a.epsilon, a.cacheModeOptional, a.isOutputKv, a.kRopeOut, a.cKvOut};
}

Work work_of(const TensorView& kv) {
  const double bytes = static_cast<double>(size_in_bytes(kv.sizes, kv.dtype));
  return {.vector_flops = 8.0 * static_cast<double>(kv.numel()), .read_bytes = bytes, .written_bytes = bytes};
}

}  // namespace

ACLNN_CHECK(KvRmsNormRopeCache) { check(rope_of(a)); }
ACLNN_KERNEL(KvRmsNormRopeCache) { run(rope_of(a)); }
ACLNN_WORK(KvRmsNormRopeCache) { return work_of(a.kv); }

ACLNN_CHECK(KvRmsNormRopeCacheV2) {
  if (a.vOptional.defined()) fail(kRuntimeError, "the emulator does not implement a separate v yet.");
  check(rope_of(a));
}
ACLNN_KERNEL(KvRmsNormRopeCacheV2) { run(rope_of(a)); }
ACLNN_WORK(KvRmsNormRopeCacheV2) { return work_of(a.kv); }

}  // namespace emulator::aclnn
