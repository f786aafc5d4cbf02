// Rotary position embedding that looks cosines and sines up by position, multimodal sections included.
// Semantics: torch_npu's document of npu_mrope.
#include <algorithm>
#include <vector>

#include "aclnn/kernels/contiguous.h"
#include "aclnn/kernels/rotary_tables.h"
#include "aclnn_arguments.h"
#include "math/convert.h"

namespace emulator::aclnn {

namespace {

struct Lookup {
  const TensorView& positions;  // [tokens], or [sections, tokens]
  const TensorView& cache;      // [max_position, rotary_dim]: cosines, then sines, of half the rotary dims each
  const IntArray& sections;     // of the half rotary dims; all 0 without multimodal positions
  bool interleaved_sections = false;

  bool multimodal() const { return positions.rank() == 2; }
  int64_t tokens() const { return positions.sizes.back(0); }
  int64_t half() const { return cache.sizes[1] / 2; }

  // Which row of positions governs half-dimension d.
  int64_t section_of(int64_t d) const {
    if (!multimodal()) return 0;
    if (interleaved_sections) return d % 3 != 0 && d < sections[1] * 3 ? d % 3 : 0;
    int64_t end = 0;
    for (size_t i = 0; i < sections.size(); ++i) {
      end += sections[i];
      if (d < end) return static_cast<int64_t>(i);
    }
    return static_cast<int64_t>(sections.size()) - 1;
  }
};

int64_t position_at(const DenseInput& positions, aclDataType dtype, int64_t index) {
  return dtype == ACL_INT64 ? positions.data_as<int64_t>()[index] : positions.data_as<int32_t>()[index];
}

// Full-width cosines and sines of one token.
void look_up(const Lookup& lookup, const DenseInput& positions, const DenseInput& cache, int64_t token, RopeStyle style,
             float* cos, float* sin) {
  const int64_t half = lookup.half();
  for (int64_t d = 0; d < half; ++d) {
    const int64_t position = position_at(positions, lookup.positions.dtype, lookup.section_of(d) * lookup.tokens() + token);
    if (position < 0 || position >= lookup.cache.sizes[0]) {
      fail(kAicoreException, "token %lld has position %lld, but cosSinCache has %lld.", static_cast<long long>(token),
           static_cast<long long>(position), static_cast<long long>(lookup.cache.sizes[0]));
    }
    const int64_t at = position * 2 * half + d;
    const float c = load_float(cache.data(), lookup.cache.dtype, at), s = load_float(cache.data(), lookup.cache.dtype, at + half);
    const int64_t first = style == RopeStyle::kHalf ? d : 2 * d, second = style == RopeStyle::kHalf ? d + half : 2 * d + 1;
    cos[first] = cos[second] = c;
    sin[first] = sin[second] = s;
  }
}

void rotate_tokens(const TensorView& x, const TensorView& y, int64_t head_size, const std::vector<float>& cos,
                   const std::vector<float>& sin, int64_t rotary, RopeStyle style) {
  const DenseInput in_x(x);
  const DenseOutput out(y);
  const int64_t tokens = x.sizes[0], heads = tokens == 0 ? 0 : x.numel() / (tokens * head_size);
  Rope op;
  op.tokens = tokens;
  op.heads = heads;
  op.dim = head_size;
  op.rotary_dim = rotary;
  op.style = style;
  op.dtype = x.dtype;
  op.x = in_x.data();
  op.y = out.data();
  op.x_token_stride = op.y_token_stride = heads * head_size;
  op.x_head_stride = op.y_head_stride = head_size;
  op.cos = cos.data();
  op.sin = sin.data();
  op.table_dtype = ACL_FLOAT;
  op.table_token_stride = rotary;
  rope(op);
}

void run_lookup(const Lookup& lookup, const TensorView& query, const TensorView& key, int64_t head_size, bool neox,
                const TensorView& query_out, const TensorView& key_out) {
  const RopeStyle style = neox ? RopeStyle::kHalf : RopeStyle::kInterleaved;
  const int64_t rotary = 2 * lookup.half();
  std::vector<float> cos(lookup.tokens() * rotary), sin(lookup.tokens() * rotary);
  const DenseInput positions(lookup.positions), cache(lookup.cache);
  for (int64_t t = 0; t < lookup.tokens(); ++t) look_up(lookup, positions, cache, t, style, &cos[t * rotary], &sin[t * rotary]);
  rotate_tokens(query, query_out, head_size, cos, sin, rotary, style);
  rotate_tokens(key, key_out, head_size, cos, sin, rotary, style);
}

void check_lookup(const Lookup& lookup, const TensorView& query, const TensorView& key, int64_t head_size,
                  const TensorView& query_out, const TensorView& key_out) {
  require_dtype(lookup.positions, "positions", {ACL_INT32, ACL_INT64});
  require_rank(lookup.positions, "positions", 1, 2);
  require_dtype(query, "queryIn", {ACL_FLOAT16, ACL_BF16, ACL_FLOAT});
  require_same_dtype(key, "keyIn", query, "queryIn");
  require_same_dtype(lookup.cache, "cosSinCache", query, "queryIn");
  require_rank(lookup.cache, "cosSinCache", 2, 2);
  require(head_size > 0 && lookup.cache.sizes[1] % 2 == 0 && lookup.cache.sizes[1] <= head_size,
          "cosSinCache is %lld wide, but must be even and at most the head size %lld.",
          static_cast<long long>(lookup.cache.sizes[1]), static_cast<long long>(head_size));
  for (const auto& [tensor, output, name] : {std::tuple{&query, &query_out, "queryIn"}, {&key, &key_out, "keyIn"}}) {
    require(tensor->rank() >= 2 && tensor->sizes[0] == lookup.tokens() && lookup.tokens() > 0 && tensor->numel() % (lookup.tokens() * head_size) == 0,
            "%s is %s, but must be [%lld, heads * %lld].", name, to_string(tensor->sizes).c_str(),
            static_cast<long long>(lookup.tokens()), static_cast<long long>(head_size));
    require_sizes(*output, "queryOut and keyOut", tensor->sizes);
    require_same_dtype(*output, "queryOut and keyOut", query, "queryIn");
  }
  if (!lookup.multimodal()) return;
  int64_t total = 0;
  for (const int64_t section : lookup.sections) total += section;
  require(static_cast<int64_t>(lookup.sections.size()) == lookup.positions.sizes[0] && total == lookup.half(),
          "mropeSection has %zu parts that sum to %lld, but positions has %lld rows and half the rotary size is %lld.",
          lookup.sections.size(), static_cast<long long>(total), static_cast<long long>(lookup.positions.sizes[0]),
          static_cast<long long>(lookup.half()));
}

}  // namespace

ACLNN_CHECK(RopeWithSinCosCache) {
  check_lookup({a.positions, a.cosSinCache, a.mropeSection}, a.queryIn, a.keyIn, a.headSize, a.queryOut, a.keyOut);
}
ACLNN_KERNEL(RopeWithSinCosCache) {
  run_lookup({a.positions, a.cosSinCache, a.mropeSection}, a.queryIn, a.keyIn, a.headSize, a.isNeoxStyle, a.queryOut, a.keyOut);
}

ACLNN_CHECK(RopeWithSinCosCacheV2) {
  require(a.cacheMode == 0 || a.cacheMode == 1, "cacheMode is %lld, but must be 0 (default) or 1 (interleave).",
          static_cast<long long>(a.cacheMode));
  check_lookup({a.positions, a.cosSinCache, a.mropeSection, a.cacheMode == 1}, a.queryIn, a.keyIn, a.headSize, a.queryOut,
               a.keyOut);
}
ACLNN_KERNEL(RopeWithSinCosCacheV2) {
  run_lookup({a.positions, a.cosSinCache, a.mropeSection, a.cacheMode == 1}, a.queryIn, a.keyIn, a.headSize, a.isNeoxStyle,
             a.queryOut, a.keyOut);
}

}  // namespace emulator::aclnn
