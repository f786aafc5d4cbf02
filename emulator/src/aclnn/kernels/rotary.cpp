// Rotary position embedding with given cosines and sines.
// Semantics: hicann/ops-transformer, posembedding/*/docs, and torch_npu's document of npu_apply_rotary_pos_emb.
#include <ATen/ops/matmul.h>
#include <ATen/ops/mul.h>

#include "aclnn/kernels/aten_arguments.h"
#include "aclnn/kernels/norm_rows.h"
#include "aclnn/kernels/rotary_tables.h"
#include "silicon/rules.h"

namespace emulator::aclnn {

namespace {

constexpr int64_t kMaxDim = 1024;
constexpr RopeStyle kModes[] = {RopeStyle::kHalf, RopeStyle::kInterleaved, RopeStyle::kQuarter, RopeStyle::kInterleavedHalf};

void check_embedding(const TensorView& x, const TensorView& cos, const TensorView& sin, int64_t mode, const TensorView& out) {
  require_dtype(x, "x", {ACL_FLOAT16, ACL_BF16, ACL_FLOAT});
  require_same_dtype(cos, "cos", x, "x");
  require_rank(x, "x", 3, 4);
  require_same_dtype(out, "out", x, "x");
  require_sizes(out, "out", x.sizes);
  check_tables(x, "x", cos, sin);
  if (mode < 0 || mode > 3) fail(kInnerTilingError, "mode is %lld, but must be 0 to 3.", static_cast<long long>(mode));
  require(chip().product == kA5 || mode < 2, "mode %lld exists on Ascend 950 products only.", static_cast<long long>(mode));
  const int64_t dim = x.sizes.back(0), multiple = mode == 2 ? 4 : 2;
  if (cos.sizes.back(0) != dim || dim % multiple != 0 || dim > kMaxDim || (chip().product != kA5 && dim >= 896)) {
    fail(kInnerTilingError, "the head size is %lld and that of cos %lld; they must be equal, a multiple of %lld and below %d.",
         static_cast<long long>(dim), static_cast<long long>(cos.sizes.back(0)), static_cast<long long>(multiple),
         chip().product == kA5 ? 1025 : 896);
  }
}

// layout of ApplyRotaryPosEmb: the position of the heads axis.
enum ApplyLayout : int64_t { kBsnd = 1, kSbnd = 2, kBnsd = 3, kTnd = 4 };

// Rule rotary_limits, by the tiling's own arithmetic: what a token of query and key takes in a vector core's buffer.
void check_unified_buffer(const TensorView& query, const TensorView& key, const TensorView& cos, int64_t layout) {
  const int64_t buffer_bytes = (chip().product == kAtlasInference ? 256 : 192) << 10;
  const int heads_axis = layout == kTnd ? 1 : 2;
  const int64_t heads = query.sizes[heads_axis] + key.sizes[heads_axis], dim = cos.sizes.back(0);
  const bool casts = query.dtype == ACL_BF16;
  const int64_t item = element_bits(query.dtype) / 8, computed = casts ? 4 : item;
  const int64_t token = heads * dim * computed, table = dim * item, cast_table = casts ? dim * 4 * 2 : 0;
  const int64_t tokens = layout == kTnd ? query.sizes[0] : query.sizes[0] * query.sizes[1];
  const int64_t small = 4 * token + 2 * table + cast_table, full = 5 * token + 4 * table + cast_table;
  const int64_t needed = tokens <= chip().vector_cores && small <= buffer_bytes ? small : full;
  if (heads <= 255 && needed <= buffer_bytes) return;
  refuse_by(Rule::kRotaryLimits, kInnerTilingError,
            "%lld heads of query and key take %lld bytes a token, but at most 255 heads and %lld bytes are possible: rotate them "
            "one after the other", static_cast<long long>(heads), static_cast<long long>(needed),
            static_cast<long long>(buffer_bytes));
}

void check_apply(const TensorView& query, const TensorView& key, const TensorView& cos, const TensorView& sin, int64_t layout) {
  const bool old_chip = chip().product != kA5;
  require(layout >= kBsnd && layout <= kTnd, "layout is %lld, but must be 1 (BSND), 2 (SBND), 3 (BNSD) or 4 (TND).",
          static_cast<long long>(layout));
  require(!old_chip || layout == kBsnd || layout == kTnd, "layout %lld is not supported on %s, only 1 (BSND) and 4 (TND).",
          static_cast<long long>(layout), chip().soc_version);
  const int rank = layout == kTnd ? 3 : 4;
  require_dtype(query, "queryRef", {ACL_FLOAT16, ACL_BF16, ACL_FLOAT});
  for (const auto& [tensor, name] : {std::pair{&query, "queryRef"}, {&key, "keyRef"}, {&cos, "cos"}, {&sin, "sin"}}) {
    require_rank(*tensor, name, rank, rank);
    require_same_dtype(*tensor, name, query, "queryRef");
    require(!old_chip || tensor->numel() > 0, "%s is empty, which %s does not support.", name, chip().soc_version);
  }
  check_tables(query, "queryRef", cos, sin);
  check_tables(key, "keyRef", cos, sin);
  // The tiling of these chips broadcasts the heads only (apply_rotary_pos_emb_tiling.cpp, CheckParams).
  const int leading = layout == kTnd ? 1 : 2;
  for (int i = 0; old_chip && i < leading; ++i) {
    require(query.sizes[i] == key.sizes[i] && query.sizes[i] == cos.sizes[i],
            "queryRef has %lld, keyRef %lld and cos %lld elements in dimension %d, but on %s they must be equal.",
            static_cast<long long>(query.sizes[i]), static_cast<long long>(key.sizes[i]),
            static_cast<long long>(cos.sizes[i]), i, chip().soc_version);
  }
  const int heads_axis = layout == kBnsd || layout == kTnd ? 1 : 2;
  require(cos.sizes[heads_axis] == 1, "cos has %lld heads, but must have 1.", static_cast<long long>(cos.sizes[heads_axis]));
  const int64_t dim = query.sizes.back(0), table = cos.sizes.back(0);
  require(key.sizes.back(0) == dim, "queryRef has head size %lld and keyRef %lld, but they must be equal.",
          static_cast<long long>(dim), static_cast<long long>(key.sizes.back(0)));
  if (old_chip) {
    require((dim == 128 || dim == 64) && (table == 128 || table == 64) && table <= dim,
            "the head size is %lld and that of cos %lld; %s supports 64 and 128.", static_cast<long long>(dim),
            static_cast<long long>(table), chip().soc_version);
  }
  require(dim <= kMaxDim && table <= dim, "the head size is %lld and that of cos %lld; they may be up to 1024 and the head size.",
          static_cast<long long>(dim), static_cast<long long>(table));
  if (enforces(Rule::kRotaryLimits)) check_unified_buffer(query, key, cos, layout);
}

// The tensor's elements one behind another from its first, whatever its strides say.
TensorView as_if_dense(const TensorView& view) {
  TensorView dense = view;
  int64_t stride = 1;
  for (int i = view.rank() - 1; i >= 0; --i) {
    dense.strides[i] = stride;
    stride *= view.sizes[i];
  }
  if (view.storage_offset + stride > view.storage_sizes.product()) {
    refuse_by(Rule::kRotaryViews, kAicoreException, "a view is read as if it were contiguous, which leaves its storage");
  }
  return dense;
}

void apply(const TensorView& x, const TensorView& cos, const TensorView& sin, RopeStyle style) {
  if (!enforces(Rule::kRotaryViews) || (x.is_contiguous() && cos.is_contiguous() && sin.is_contiguous())) {
    return rotate_broadcast(x, cos, sin, style, x);
  }
  tell(Rule::kRotaryViews, "aclnnApplyRotaryPosEmb", "a view is read and written as if it were contiguous");
  const TensorView dense = as_if_dense(x);
  rotate_broadcast(dense, as_if_dense(cos), as_if_dense(sin), style, dense);
}

RopeStyle style_of(const std::string& mode) {
  if (mode == "interleave") return RopeStyle::kInterleaved;
  return mode == "quarter" ? RopeStyle::kQuarter : RopeStyle::kHalf;
}

}  // namespace

ACLNN_CHECK(RotaryPositionEmbedding) { check_embedding(a.x, a.cos, a.sin, a.mode, a.out); }
ACLNN_KERNEL(RotaryPositionEmbedding) { rotate_broadcast(a.x, a.cos, a.sin, kModes[a.mode], a.out); }
ACLNN_WORK(RotaryPositionEmbedding) { return rotary_work(a.x); }

// With `rotate` the rotated x is x @ rotate, whatever the mode.
ACLNN_CHECK(RotaryPositionEmbeddingV2) {
  check_embedding(a.x, a.cos, a.sin, a.mode, a.out);
  if (a.rotate.defined()) require_sizes(a.rotate, "rotate", Dims{a.x.sizes.back(0), a.x.sizes.back(0)});
}
ACLNN_KERNEL(RotaryPositionEmbeddingV2) {
  if (!a.rotate.defined()) return rotate_broadcast(a.x, a.cos, a.sin, kModes[a.mode], a.out);
  const at::Tensor x = in(a.x).to(at::kFloat), rotated = at::matmul(x, in(a.rotate).to(at::kFloat));
  store(a.out, at::mul(x, in(a.cos)).add_(at::mul(rotated, in(a.sin))));
}
ACLNN_WORK(RotaryPositionEmbeddingV2) { return rotary_work(a.x); }

ACLNN_CHECK(ApplyRotaryPosEmb) { check_apply(a.queryRef, a.keyRef, a.cos, a.sin, a.layout); }
ACLNN_KERNEL(ApplyRotaryPosEmb) {
  apply(a.queryRef, a.cos, a.sin, RopeStyle::kHalf);
  apply(a.keyRef, a.cos, a.sin, RopeStyle::kHalf);
}

ACLNN_CHECK(ApplyRotaryPosEmbV2) {
  check_apply(a.queryRef, a.keyRef, a.cos, a.sin, a.layout);
  require(a.rotaryMode == "half" || (chip().product == kA5 && (a.rotaryMode == "interleave" || a.rotaryMode == "quarter")),
          "rotaryMode is \"%s\", but must be \"half\"%s.", a.rotaryMode.c_str(),
          chip().product == kA5 ? ", \"interleave\" or \"quarter\"" : "");
}
ACLNN_KERNEL(ApplyRotaryPosEmbV2) {
  apply(a.queryRef, a.cos, a.sin, style_of(a.rotaryMode));
  apply(a.keyRef, a.cos, a.sin, style_of(a.rotaryMode));
}
ACLNN_WORK(ApplyRotaryPosEmbV2) {
  Work work = rotary_work(a.queryRef);
  const Work key = rotary_work(a.keyRef);
  work.vector_flops += key.vector_flops;
  work.read_bytes += key.read_bytes;
  work.written_bytes += key.written_bytes;
  return work;
}

// x [B, N, S, 64]: pairs are split into halves first, then rotated.
ACLNN_CHECK(InterleaveRope) {
  require_dtype(a.x, "x", {ACL_FLOAT16, ACL_BF16});
  require_rank(a.x, "x", 4, 4);
  require(a.x.sizes[3] == 64, "the last dimension of x is %lld, but must be 64.", static_cast<long long>(a.x.sizes[3]));
  require_same_dtype(a.cos, "cos", a.x, "x");
  check_tables(a.x, "x", a.cos, a.sin);
  require_sizes(a.out, "out", a.x.sizes);
}
ACLNN_KERNEL(InterleaveRope) { rotate_broadcast(a.x, a.cos, a.sin, RopeStyle::kInterleavedHalf, a.out); }

}  // namespace emulator::aclnn
