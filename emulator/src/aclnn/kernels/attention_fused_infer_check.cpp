// Phase-1 refusals of FusedInferAttentionScore.
#include <algorithm>

#include "aclnn/kernels/attention_fused_infer.h"
#include "aclnn/kernels/attention_sparse.h"

namespace emulator::aclnn {

namespace {

constexpr int64_t kMaxDim = 512;
constexpr int64_t kMaxPackedTokens = 1 << 20;

// Keys and values come in lists: what shape_of() and the kernel read of them must be there, and be alike.
void check_lists(const FusedInfer& op) {
  require(op.heads > 0 && op.heads <= 256, "numHeads is %lld, but must be 1 to 256.", static_cast<long long>(op.heads));
  require(op.kv_heads >= 0, "numKeyValueHeads is %lld, but must not be negative.", static_cast<long long>(op.kv_heads));
  require(!op.key->empty() && op.key->size() == op.value->size(),
          "key has %zu tensors and value %zu, but they must be equal, and at least one.", op.key->size(), op.value->size());
  for (size_t i = 0; i < op.key->size(); ++i) {
    require((*op.key)[i].defined() && (*op.value)[i].defined(), "key and value must have no null elements.");
    require((*op.key)[i].dtype == (*op.key)[0].dtype, "the tensors of key must be of one data type.");
  }
}

void check_supported(const FusedInfer& op) {
  require_dtype(*op.query, "query", {ACL_FLOAT16, ACL_BF16});  // int8 queries belong to full quantization
  for (const TensorView* factor : op.full_quant) require(!has(factor), "the emulator does not implement int8 queries.");
  require(!has(op.query_scale), "the emulator does not implement quantized queries (dequantScaleQuery).");
  require(!has(op.prefix), "the emulator does not implement shared prefixes.");
  require_dtype((*op.key)[0], "key", {ACL_FLOAT16, ACL_BF16, ACL_INT8});
  require_dtype(*op.output, "attentionOut", {ACL_FLOAT16, ACL_BF16, ACL_INT8});
  for (size_t i = 0; i < op.key->size(); ++i) {
    require_same_dtype((*op.key)[i], "key", (*op.value)[i], "value");
    require((*op.key)[i].dtype == ACL_INT8 || (*op.key)[i].dtype == op.query->dtype,
            "query is %s and key %s, but they must be of one type, or key int8.", dtype_name(op.query->dtype),
            dtype_name((*op.key)[i].dtype));
  }
}

void check_heads(const FusedInfer& op, const FusedInferShape& shape) {
  require(shape.kv_heads > 0 && op.heads % shape.kv_heads == 0 && op.heads / shape.kv_heads <= 64,
          "numHeads %lld must be a multiple, at most 64-fold, of numKeyValueHeads %lld.", static_cast<long long>(op.heads),
          static_cast<long long>(shape.kv_heads));
  const int64_t dim = shape.query.dim;
  require(dim == shape.key_dim(), "query has head size %lld and key %lld, but they must be equal.",
          static_cast<long long>(dim), static_cast<long long>(shape.key_dim()));
  const int64_t multiple = (*op.key)[0].dtype == ACL_INT8 || op.output->dtype == ACL_INT8 ? 32 : 16;
  require(dim <= kMaxDim && dim % multiple == 0, "the head size is %lld, but must be a multiple of %lld up to 512.",
          static_cast<long long>(dim), static_cast<long long>(multiple));
  require(shape.output.dim == shape.value_dim(), "attentionOut has head size %lld, but value has %lld.",
          static_cast<long long>(shape.output.dim), static_cast<long long>(shape.value_dim()));
  require(shape.output.tokens == shape.query.tokens && shape.output.batch == shape.query.batch,
          "attentionOut %s does not fit query %s in layout %s.", to_string(op.output->sizes).c_str(),
          to_string(op.query->sizes).c_str(), std::string(op.layout).c_str());
}

// Without pages: each sequence of queries has its own keys, and each key its value.
void check_contiguous(const FusedInfer& op, const FusedInferShape& shape) {
  if (shape.paged) {
    require(shape.paged_key.blocks == shape.paged_value.blocks, "key has %lld blocks and value %lld, but they must be equal.",
            static_cast<long long>(shape.paged_key.blocks), static_cast<long long>(shape.paged_value.blocks));
    return;
  }
  const int64_t expected = shape.packed || op.key->size() > 1 ? 1 : shape.batch;
  for (size_t i = 0; i < op.key->size(); ++i) {
    const HeadLayout key = head_layout(query_layout(op.layout), (*op.key)[i], "key", shape.kv_heads);
    const HeadLayout value = head_layout(query_layout(op.layout), (*op.value)[i], "value", shape.kv_heads);
    require(key.batch == expected, "key %s has a batch of %lld, but there are %lld sequences%s.",
            to_string((*op.key)[i].sizes).c_str(), static_cast<long long>(key.batch), static_cast<long long>(expected),
            op.key->size() > 1 ? " a tensor of the list" : " of queries");
    require(value.batch == key.batch && value.tokens == key.tokens,
            "value %s must have the batch and the tokens of key %s.", to_string((*op.value)[i].sizes).c_str(),
            to_string((*op.key)[i].sizes).c_str());
    require(key.dim == shape.key.dim && value.dim == shape.value.dim, "the tensors of key and value must be of one head size.");
  }
}

void check_rope(const FusedInfer& op, const FusedInferShape& shape) {
  require(has(op.query_rope) == has(op.key_rope), "queryRope and keyRope must be given together.");
  if (!has(op.query_rope)) return;
  require(shape.query.dim == 512 || shape.query.dim == 128, "with queryRope the head size must be 512 or 128, not %lld.",
          static_cast<long long>(shape.query.dim));
  require_same_dtype(*op.query_rope, "queryRope", *op.query, "query");
  require((*op.key)[0].dtype != ACL_INT8, "the emulator does not implement int8 keys with queryRope.");
  const HeadLayout rope = head_layout(query_layout(op.layout), *op.query_rope, "queryRope", op.heads);
  require(rope.dim == 64, "queryRope has head size %lld, but must have 64.", static_cast<long long>(rope.dim));
  require(rope.batch == shape.query.batch && rope.tokens == shape.query.tokens,
          "queryRope %s must have the batch and the tokens of query %s.", to_string(op.query_rope->sizes).c_str(),
          to_string(op.query->sizes).c_str());
  require_same_dtype(*op.key_rope, "keyRope", (*op.key)[0], "key");
  if (shape.paged) {
    const PagedLayout key = paged_layout(*op.key_rope, "keyRope", shape.kv_heads);
    require(key.keys.dim == 64 && key.blocks == shape.paged_key.blocks && key.block_size == shape.paged_key.block_size,
            "keyRope %s must have the blocks of key %s and head size 64.", to_string(op.key_rope->sizes).c_str(),
            to_string((*op.key)[0].sizes).c_str());
  } else {
    require(op.key->size() == 1, "the emulator does not implement lists of keys with keyRope.");
    const HeadLayout key = head_layout(query_layout(op.layout), *op.key_rope, "keyRope", shape.kv_heads);
    require(key.dim == 64 && key.batch == shape.key.batch && key.tokens == shape.key.tokens,
            "keyRope %s must have the batch and the tokens of key %s and head size 64.", to_string(op.key_rope->sizes).c_str(),
            to_string((*op.key)[0].sizes).c_str());
  }
  require(shape.query.dim != 512 || shape.kv_heads == 1, "with head size 512 there must be 1 key/value head, not %lld.",
          static_cast<long long>(shape.kv_heads));
}

// Rules of packed sequences (hicann/ops-transformer, CheckInputShapeWhenLayoutIsTND).
void check_packed(const FusedInfer& op, const FusedInferShape& shape) {
  if (!shape.packed) return;
  const char* layout = op.layout.data();
  require(shape.query.tokens <= kMaxPackedTokens, "query has %lld tokens, but layout %s takes at most 1048576.",
          static_cast<long long>(shape.query.tokens), layout);
  require(op.sparse_mode == 0 || op.sparse_mode == 3 || op.sparse_mode == 4,
          "sparseMode is %lld, but layout %s takes 0, 3 and 4.", static_cast<long long>(op.sparse_mode), layout);
  require(op.sparse_mode != 0 || !has(op.mask), "attenMask must not be given with sparseMode 0 in layout %s.", layout);
  require(!has(op.pse_shift), "pseShift is not supported in layout %s.", layout);
  require(op.key->size() == 1, "key and value must be one tensor each in layout %s, not a list of %zu.", layout, op.key->size());
  require(!has(op.query_padding) && !has(op.kv_padding), "left padding is not supported in layout %s.", layout);
  const int64_t dim = shape.query.dim, value_dim = shape.value_dim();
  if (has(op.query_rope)) return;
  const bool equal = dim == value_dim && (dim == 64 || dim == 128 || dim == 192);
  require(equal || (dim == 192 && value_dim == 128),
          "query has head size %lld and value %lld, but layout %s takes 64, 128 or 192 for both, or 192 and 128.",
          static_cast<long long>(dim), static_cast<long long>(value_dim), layout);
  require(value_dim != 192 || op.heads == shape.kv_heads, "value has head size 192, which needs as many key/value heads as heads.");
}

void check_pages(const FusedInfer& op, const FusedInferShape& shape) {
  if (!shape.paged) return;
  const int64_t block_size = op.block_size;
  require_dtype(*op.block_table, "blockTable", {ACL_INT32});
  require_rank(*op.block_table, "blockTable", 2, 2);
  require(op.block_table->strides[1] == 1 || op.block_table->sizes[1] == 1, "the rows of blockTable must be contiguous.");
  require(op.block_table->sizes[0] >= shape.batch, "blockTable has %lld rows for %lld sequences.",
          static_cast<long long>(op.block_table->sizes[0]), static_cast<long long>(shape.batch));
  require(shape.paged_key.block_size == block_size && shape.paged_value.block_size == block_size,
          "blockSize is %lld, but the cache has blocks of %lld tokens.", static_cast<long long>(block_size),
          static_cast<long long>(shape.paged_key.block_size));
  const bool prefill = !shape.packed && shape.query.tokens > 1 && !has(op.query_rope);
  const int64_t multiple = prefill ? 128 : (*op.key)[0].dtype == ACL_INT8 ? 32 : 16;
  const int64_t most = shape.packed || has(op.query_rope) ? 1024 : 512;
  require(block_size > 0 && block_size <= most && block_size % multiple == 0,
          "blockSize is %lld, but must be a multiple of %lld up to %lld here.", static_cast<long long>(block_size),
          static_cast<long long>(multiple), static_cast<long long>(most));
  require(op.key->size() == 1, "key and value must be one cache each with a block table, not a list of %zu.", op.key->size());
  require(!has(op.query_padding) && !has(op.kv_padding), "left padding is not supported with a block table.");
  const auto layout = query_layout(op.layout);
  require((layout != "BSH" && layout != "BSND") || (*op.key)[0].rank() != 4 || has(op.query_rope),
          "the cache must be [blocks, block_size, heads * dim] in layout %s.", op.layout.data());
  const int64_t capacity = op.block_table->sizes[1] * block_size;
  for (const int64_t length : shape.kv_lengths) {
    require(length >= 0 && length <= capacity, "a sequence has %lld keys, but its row of blockTable covers %lld.",
            static_cast<long long>(length), static_cast<long long>(capacity));
  }
}

void check_lengths(const FusedInfer& op, const FusedInferShape& shape) {
  for (int64_t b = 0; b < shape.batch; ++b) {
    require(shape.query_lengths[b] >= 0 && shape.query_lengths[b] <= shape.query.tokens,
            "sequence %lld has %lld queries, but query has %lld tokens.", static_cast<long long>(b),
            static_cast<long long>(shape.query_lengths[b]), static_cast<long long>(shape.query.tokens));
    if (shape.packed && op.sparse_mode == 3) {
      require(shape.query_lengths[b] <= shape.kv_lengths[b],
              "sequence %lld has %lld queries and %lld keys; sparseMode 3 in layout %s needs as many keys.",
              static_cast<long long>(b), static_cast<long long>(shape.query_lengths[b]),
              static_cast<long long>(shape.kv_lengths[b]), op.layout.data());
    }
    if (shape.paged) continue;
    const TensorView& key = (*op.key)[op.key->size() == 1 ? 0 : b];
    const int64_t available = head_layout(query_layout(op.layout), key, "key", shape.kv_heads).tokens;
    require(shape.kv_lengths[b] >= 0 && shape.kv_begins[b] + shape.kv_lengths[b] <= available,
            "sequence %lld has %lld keys, but key has %lld tokens.", static_cast<long long>(b),
            static_cast<long long>(shape.kv_lengths[b]), static_cast<long long>(available));
  }
}

void check_list_size(const FusedInfer& op, const FusedInferShape& shape) {
  require(shape.paged || op.key->size() == 1 || static_cast<int64_t>(op.key->size()) == shape.batch,
          "key is a list of %zu tensors for %lld sequences.", op.key->size(), static_cast<long long>(shape.batch));
}

int64_t most_keys(const FusedInferShape& shape) {
  return shape.kv_lengths.empty() ? 0 : *std::max_element(shape.kv_lengths.begin(), shape.kv_lengths.end());
}

// pseShift [1 or batch, heads, queries or more, keys or more] (the operator's document).
void check_bias(const FusedInfer& op, const FusedInferShape& shape) {
  if (!has(op.pse_shift)) return;
  const Dims& sizes = op.pse_shift->sizes;
  require_dtype(*op.pse_shift, "pseShift", {ACL_FLOAT16, ACL_BF16});
  require_rank(*op.pse_shift, "pseShift", 4, 4);
  require((sizes[0] == 1 || sizes[0] == shape.batch) && sizes[1] == op.heads && sizes[2] >= shape.query.tokens &&
              sizes[3] >= most_keys(shape),
          "pseShift is %s, but must be [1 or %lld, %lld, at least %lld, at least %lld].", to_string(sizes).c_str(),
          static_cast<long long>(shape.batch), static_cast<long long>(op.heads), static_cast<long long>(shape.query.tokens),
          static_cast<long long>(most_keys(shape)));
}

void check_paddings(const FusedInfer& op) {
  for (const auto& [padding, name] : {std::pair{op.query_padding, "queryPaddingSize"}, {op.kv_padding, "kvPaddingSize"}}) {
    if (!has(padding)) continue;
    require_dtype(*padding, name, {ACL_INT64});
    require(padding->numel() == 1, "%s has %lld elements, but must have one.", name, static_cast<long long>(padding->numel()));
    require(op.key->size() == 1, "%s is not supported with lists of keys.", name);
  }
}

void check_mask(const FusedInfer& op, const FusedInferShape& shape) {
  require(op.sparse_mode >= 0 && op.sparse_mode <= 4, "sparseMode is %lld, but must be 0 to 4.",
          static_cast<long long>(op.sparse_mode));
  const bool decoding = !shape.packed && shape.query.tokens == 1 && !has(op.query_rope);
  if (!decoding) {
    require(op.sparse_mode == 0 || has(op.mask), "sparseMode %lld needs attenMask.", static_cast<long long>(op.sparse_mode));
  }
  if (!has(op.mask)) return;
  require_dtype(*op.mask, "attenMask", {ACL_BOOL, ACL_INT8, ACL_UINT8});
  const Dims& sizes = op.mask->sizes;
  if (op.sparse_mode >= 2 && !decoding) {
    require(sizes.rank() >= 2 && sizes.back(0) == kCompressedMask && sizes.back(1) == kCompressedMask &&
                sizes.product() == kCompressedMask * kCompressedMask,
            "attenMask is %s, but sparseMode %lld takes the compressed mask of 2048 x 2048.", to_string(sizes).c_str(),
            static_cast<long long>(op.sparse_mode));
    return;
  }
  require_rank(*op.mask, "attenMask", 2, 4);
  const int64_t keys = most_keys(shape);
  const int64_t capacity = shape.paged ? op.block_table->sizes[1] * op.block_size : keys;
  require(sizes.back(0) >= capacity, "attenMask %s has %lld columns, but must have at least %lld.", to_string(sizes).c_str(),
          static_cast<long long>(sizes.back(0)), static_cast<long long>(capacity));
  const bool per_batch_row = decoding && sizes.rank() == 2;
  require(per_batch_row || sizes.back(1) >= shape.query.tokens, "attenMask %s has %lld rows, but query has %lld tokens.",
          to_string(sizes).c_str(), static_cast<long long>(sizes.back(1)), static_cast<long long>(shape.query.tokens));
  if (sizes.rank() == 2 && !per_batch_row) return;
  require(sizes[0] == 1 || sizes[0] == shape.batch, "attenMask %s is for %lld sequences, but there are %lld.",
          to_string(sizes).c_str(), static_cast<long long>(sizes[0]), static_cast<long long>(shape.batch));
}

// What is filled or rounded as a whole is addressed as a whole.
void check_dense_outputs(const FusedInfer& op, const FusedInferShape& shape) {
  const bool padded = !shape.packed && std::any_of(shape.query_lengths.begin(), shape.query_lengths.end(),
                                                   [&](int64_t length) { return length < shape.query.tokens; });
  require(op.output->is_contiguous() || !(padded || op.output->dtype == ACL_INT8),
          "attentionOut must be contiguous where it is int8 or sequences are padded.");
  require(op.lse == nullptr || !op.lse->defined() || op.lse->is_contiguous(), "softmaxLse must be contiguous.");
}

void check_lse(const FusedInfer& op, const FusedInferShape& shape) {
  if (!op.wants_lse) return;
  require(op.lse != nullptr && op.lse->defined(), "softmaxLse must be given when softmaxLseFlag is set.");
  require_dtype(*op.lse, "softmaxLse", {ACL_FLOAT});
  require_sizes(*op.lse, "softmaxLse",
                shape.packed ? Dims{shape.query.tokens, op.heads, 1} : Dims{shape.batch, op.heads, shape.query.tokens, 1});
}

// Factors of int8 keys or values by mode: 0 channel (or one), 1 token, 2 head, 3 token and head, 4 and 5 the same of pages.
void check_factors(const TensorView* scale, const TensorView* offset, int64_t mode, const FusedInferShape& shape, int64_t count,
                   int64_t dim, const char* name) {
  require(!has(offset) || offset->numel() == scale->numel(), "the offsets of %s must be as many as its scales.", name);
  if (mode == 0 || mode == 2) {
    const int64_t channels = shape.kv_heads * dim;
    require(count == channels || count == 1 || (mode == 2 && count == shape.kv_heads),
            "an antiquant scale has %lld elements, but mode %lld takes %lld (or one for all).", static_cast<long long>(count),
            static_cast<long long>(mode), static_cast<long long>(mode == 2 ? shape.kv_heads : channels));
    return;
  }
  const int64_t heads = mode == 3 || mode == 5 ? shape.kv_heads : 1;
  const bool by_page = mode == 4 || mode == 5;
  require(!by_page || shape.paged, "antiquant mode %lld needs a block table.", static_cast<long long>(mode));
  const int64_t needed = by_page ? shape.paged_key.blocks * shape.paged_key.block_size * heads
                                 : shape.batch * heads * most_keys(shape);
  require(count >= needed && (by_page || shape.batch == 0 || count % (shape.batch * heads) == 0),
          "an antiquant scale of %s has %lld elements, but mode %lld needs %lld.", name, static_cast<long long>(count),
          static_cast<long long>(mode), static_cast<long long>(needed));
}

void check_quantization(const FusedInfer& op, const FusedInferShape& shape) {
  require(op.output->dtype != ACL_INT8 || has(op.quant_scale), "attentionOut is int8, which needs quantScale2.");
  require(op.output->dtype == ACL_INT8 || !has(op.quant_scale), "quantScale2 is given, but attentionOut is %s, not int8.",
          dtype_name(op.output->dtype));
  for (const TensorView* factor : {op.quant_scale, op.quant_offset}) {
    if (!has(factor)) continue;
    require(factor->numel() == 1 || factor->numel() == op.heads * shape.output.dim,
            "quantScale2 and quantOffset2 must have one element or numHeads * head size, not %lld.",
            static_cast<long long>(factor->numel()));
  }
  if ((*op.key)[0].dtype != ACL_INT8) return;
  require(has(op.antiquant_scale) || (has(op.key_scale) && has(op.value_scale)),
          "key is int8, which needs antiquantScale, or keyAntiquantScale and valueAntiquantScale.");
  for (const int64_t mode : {op.key_mode, op.value_mode, op.antiquant_mode}) {
    require(mode >= 0 && mode <= 5, "an antiquant mode is %lld, but must be 0 to 5.", static_cast<long long>(mode));
  }
  if (has(op.key_scale)) {
    check_factors(op.key_scale, op.key_offset, op.key_mode, shape, op.key_scale->numel(), shape.key_dim(), "key");
    check_factors(op.value_scale, op.value_offset, op.value_mode, shape, op.value_scale->numel(), shape.value_dim(), "value");
    return;
  }
  require(op.antiquant_scale->numel() % 2 == 0 && op.antiquant_scale->is_contiguous() &&
              (!has(op.antiquant_offset) || op.antiquant_offset->is_contiguous()),
          "antiquantScale must be contiguous and hold the factors of keys, then those of values.");
  const int64_t count = op.antiquant_scale->numel() / 2;
  check_factors(op.antiquant_scale, op.antiquant_offset, op.antiquant_mode, shape, count, shape.key_dim(), "key");
  check_factors(op.antiquant_scale, op.antiquant_offset, op.antiquant_mode, shape, count, shape.value_dim(), "value");
}

void check_sinks(const FusedInfer& op, const FusedInferShape& shape) {
  if (!has(op.sinks)) return;
  require_dtype(*op.sinks, "learnableSink", {ACL_BF16, ACL_FLOAT16, ACL_FLOAT});
  require_sizes(*op.sinks, "learnableSink", Dims{op.heads});
  require(shape.packed && (shape.value_dim() == 64 || shape.value_dim() == 128),
          "learnableSink needs layout TND or NTD_TND and head size 64 or 128.");
}

}  // namespace

void check(const FusedInfer& op) {
  check_lists(op);
  check_supported(op);
  const FusedInferShape shape = shape_of(op);
  check_heads(op, shape);
  check_list_size(op, shape);
  check_contiguous(op, shape);
  check_rope(op, shape);
  check_packed(op, shape);
  check_pages(op, shape);
  check_lengths(op, shape);
  check_mask(op, shape);
  check_bias(op, shape);
  check_paddings(op);
  check_dense_outputs(op, shape);
  check_lse(op, shape);
  check_quantization(op, shape);
  check_sinks(op, shape);
}

}  // namespace emulator::aclnn
