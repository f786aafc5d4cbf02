// FusedInferAttentionScore on the attention core.
#include "aclnn/kernels/attention_fused_infer.h"
#include "aclnn/kernels/attention_sparse.h"
#include "aclnn/kernels/contiguous.h"
#include "aclnn/kernels/float_values.h"
#include "silicon/rules.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace emulator::aclnn {

namespace {


// A block id outside the cache is an illegal address on hardware.
void check_blocks(const FusedInfer& op, const FusedInferShape& shape) {
  const auto* table = op.block_table->data_as<int32_t>();
  for (int64_t b = 0; b < shape.batch; ++b) {
    const int64_t used = (shape.kv_lengths[b] + op.block_size - 1) / op.block_size;
    for (int64_t i = 0; i < used; ++i) {
      const int32_t block = table[b * op.block_table->strides[0] + i];
      if (block >= 0 && block < shape.paged_key.blocks) continue;
      fail(kAicoreException, "blockTable[%lld][%lld] is %d, but the cache has %lld blocks.", static_cast<long long>(b),
           static_cast<long long>(i), block, static_cast<long long>(shape.paged_key.blocks));
    }
  }
}

int64_t padding_of(const TensorView* padding) {
  return has(padding) ? std::max<int64_t>(0, *padding->data_as<int64_t>()) : 0;
}

Band band_of(const FusedInfer& op, int64_t query_length, int64_t kv_length, bool decoding) {
  if (decoding || (op.sparse_mode <= 1 && !has(op.mask)) || op.sparse_mode == 1) return {};
  return sparse_band(op.sparse_mode, op.pre_tokens, op.next_tokens, query_length, kv_length);
}

// First token of a sequence that ends `padding` tokens before the end of its row.
int64_t padded_begin(int64_t tokens, int64_t padding, int64_t length, const char* name) {
  const int64_t first = tokens - padding - length;
  if (first >= 0) return first;
  fail(kAicoreException, "%s is %lld, but a sequence of %lld within %lld tokens leaves no room for it.", name,
       static_cast<long long>(padding), static_cast<long long>(length), static_cast<long long>(tokens));
}

Mask mask_of(const FusedInfer& op, const DenseInput& values, bool decoding) {
  Mask mask;
  if (!has(op.mask)) return mask;
  mask.kind = Mask::Kind::kExclude;
  mask.data = values.data();
  mask.dtype = op.mask->dtype == ACL_INT8 ? ACL_UINT8 : op.mask->dtype;
  mask.row_stride = op.mask->sizes.back(0);
  if (op.sparse_mode >= 2 && !decoding) mask.compressed_size = op.mask->sizes.back(0);
  return mask;
}

// Elements between the masks of successive sequences; 0 if they share one.
int64_t mask_batch_stride(const TensorView& mask, bool decoding) {
  if (mask.rank() == 2) return decoding && mask.sizes[0] > 1 ? mask.sizes[1] : 0;
  return mask.sizes[0] > 1 ? mask.numel() / mask.sizes[0] : 0;
}

Mask bias_of(const FusedInfer& op, const DenseInput& values) {
  Mask bias;
  if (!has(op.pse_shift)) return bias;
  bias.kind = Mask::Kind::kAdditive;
  bias.data = values.data();
  bias.dtype = op.pse_shift->dtype;
  bias.row_stride = op.pse_shift->sizes.back(0);
  bias.head_stride = op.pse_shift->sizes.back(0) * op.pse_shift->sizes.back(1);
  return bias;
}

void add_sequences(const FusedInfer& op, const FusedInferShape& shape, bool decoding, Attention& attention) {
  const int64_t query_padding = padding_of(op.query_padding), kv_padding = padding_of(op.kv_padding);
  const HeadLayout rope = has(op.query_rope) ? head_layout(query_layout(op.layout), *op.query_rope, "queryRope", op.heads) : HeadLayout{};
  const HeadLayout key_rope = has(op.key_rope) && !shape.paged
                                  ? head_layout(query_layout(op.layout), *op.key_rope, "keyRope", shape.kv_heads)
                                  : HeadLayout{};
  for (int64_t b = 0; b < shape.batch; ++b) {
    Sequence s;
    s.query_length = shape.query_lengths[b];
    s.kv_length = shape.kv_lengths[b];
    int64_t first = shape.query_begins[b], first_key = shape.kv_begins[b];
    if (has(op.query_padding)) first = padded_begin(shape.query.tokens, query_padding, s.query_length, "queryPaddingSize");
    if (has(op.kv_padding)) first_key = padded_begin(shape.key.tokens, kv_padding, s.kv_length, "kvPaddingSize");
    const int64_t row = shape.packed ? 0 : b;
    s.query_offset = row * shape.query.batch_stride + first * shape.query.token_stride;
    s.query_rope_offset = row * rope.batch_stride + first * rope.token_stride;
    s.output_offset = row * shape.output.batch_stride + first * shape.output.token_stride;
    s.lse_offset = shape.packed ? first * op.heads : (b * op.heads * shape.query.tokens + first);
    if (shape.paged) {
      s.block_table = op.block_table->data_as<int32_t>() + b * op.block_table->strides[0];
    } else {
      const int64_t own = op.key->size() == 1 ? row : 0;  // of a list, each sequence has its own tensor
      s.key_offset = own * shape.key.batch_stride + first_key * shape.key.token_stride;
      s.value_offset = own * shape.value.batch_stride + first_key * shape.value.token_stride;
      s.key_rope_offset = row * key_rope.batch_stride + first_key * key_rope.token_stride;
    }
    s.band = band_of(op, s.query_length, s.kv_length, decoding);
    if (has(op.mask) && attention.mask.compressed_size == 0) s.mask_offset = b * mask_batch_stride(*op.mask, decoding);
    if (has(op.pse_shift)) s.bias_offset = op.pse_shift->sizes[0] > 1 ? b * op.pse_shift->numel() / op.pse_shift->sizes[0] : 0;
    attention.sequences.push_back(s);
  }
}

// A list of keys has one tensor for each sequence, of its own length and therefore, in BNSD, of its own strides.
void attend_to_list(const FusedInfer& op, const FusedInferShape& shape, Attention attention) {
  const std::vector<Sequence> sequences = attention.sequences;
  const auto layout = query_layout(op.layout);
  for (size_t b = 0; b < sequences.size(); ++b) {
    const TensorView &key = (*op.key)[b], &value = (*op.value)[b];
    const KeyValue keys = contiguous_keys(head_layout(layout, key, "key", shape.kv_heads), key);
    const KeyValue values = contiguous_keys(head_layout(layout, value, "value", shape.kv_heads), value);
    attention.key.data = key.data();
    attention.value.data = value.data();
    attention.key.token_stride = keys.token_stride;
    attention.key.head_stride = keys.head_stride;
    attention.value.token_stride = values.token_stride;
    attention.value.head_stride = values.head_stride;
    attention.sequences = {sequences[b]};
    emulator::attention(attention);
  }
}

void set_rope(const FusedInfer& op, const FusedInferShape& shape, Attention& attention) {
  if (!has(op.query_rope)) return;
  const HeadLayout rope = head_layout(query_layout(op.layout), *op.query_rope, "queryRope", op.heads);
  attention.query_rope = op.query_rope->data();
  attention.query_rope_token_stride = rope.token_stride;
  attention.query_rope_head_stride = rope.head_stride;
  attention.key_rope = shape.paged
                           ? paged_layout(*op.key_rope, "keyRope", shape.kv_heads).keys
                           : contiguous_keys(head_layout(query_layout(op.layout), *op.key_rope, "keyRope", shape.kv_heads), *op.key_rope);
  attention.key_rope.data = op.key_rope->data();
}

// attentionOut = round(result / 1 * scale + offset), saturated: quantScale2 multiplies.
void quantize_output(const FusedInfer& op, const FusedInferShape& shape, const std::vector<float>& result) {
  const std::vector<float> scale = float_values(*op.quant_scale);
  const std::vector<float> offset = has(op.quant_offset) ? float_values(*op.quant_offset) : std::vector<float>{};
  auto* out = op.output->data_as<int8_t>();
  const int64_t dim = shape.output.dim;
  for (int64_t i = 0; i < static_cast<int64_t>(result.size()); ++i) {
    const int64_t head = i / shape.output.head_stride % op.heads;
    const int64_t channel = scale.size() == 1 ? 0 : head * dim + i % dim;
    const float value = result[i] * scale[channel] + (offset.empty() ? 0.0f : offset[offset.size() == 1 ? 0 : channel]);
    out[i] = static_cast<int8_t>(std::clamp(std::nearbyint(value), -128.0f, 127.0f));
  }
}

// The halves of antiquantScale [2, ...]: keys first.
TensorView half_of(const TensorView& both, int64_t which) {
  TensorView half = both;
  half.sizes = Dims{both.numel() / 2};
  half.strides = Dims{1};
  half.storage_offset += which * both.numel() / 2;
  return half;
}

struct CacheFactors {
  Dequantization key, value;
};

CacheFactors cache_factors(const FusedInfer& op, const FusedInferShape& shape) {
  if (has(op.key_scale)) {
    return {dequantization(*op.key_scale, op.key_offset, op.key_mode, shape, shape.key_dim()),
            dequantization(*op.value_scale, op.value_offset, op.value_mode, shape, shape.value_dim())};
  }
  const TensorView scales[] = {half_of(*op.antiquant_scale, 0), half_of(*op.antiquant_scale, 1)};
  TensorView offsets[2];
  if (has(op.antiquant_offset)) offsets[0] = half_of(*op.antiquant_offset, 0), offsets[1] = half_of(*op.antiquant_offset, 1);
  return {dequantization(scales[0], &offsets[0], op.antiquant_mode, shape, shape.key_dim()),
          dequantization(scales[1], &offsets[1], op.antiquant_mode, shape, shape.value_dim())};
}

}  // namespace

Dequantization dequantization(const TensorView& scale, const TensorView* offset, int64_t mode, const FusedInferShape& shape,
                              int64_t dim) {
  const int64_t channels = shape.kv_heads * dim;
  const bool per_channel = mode == 0 || mode == 2;
  Dequantization result{float_values(scale), has(offset) ? float_values(*offset) : std::vector<float>{}};
  if (!per_channel) return result;
  const int64_t count = scale.numel();
  require(count == channels || count == 1 || (mode == 2 && count == shape.kv_heads),
          "an antiquant scale has %lld elements, but mode %lld takes %lld (or one for all).", static_cast<long long>(count),
          static_cast<long long>(mode), static_cast<long long>(mode == 2 ? shape.kv_heads : channels));
  for (std::vector<float>* factors : {&result.scale, &result.offset}) {
    if (factors->empty() || static_cast<int64_t>(factors->size()) == channels) continue;
    std::vector<float> spread(channels);
    for (int64_t c = 0; c < channels; ++c) spread[c] = (*factors)[factors->size() == 1 ? 0 : c / dim];
    *factors = std::move(spread);
  }
  return result;
}

void Dequantization::apply(KeyValue& kv, int64_t mode, const FusedInferShape& shape) {
  const float* offsets = offset.empty() ? nullptr : offset.data();
  if (mode == 0 || mode == 2) {
    kv.channel_scale = scale.data();
    kv.channel_offset = offsets;
    return;
  }
  kv.token_scale = scale.data();
  kv.token_offset = offsets;
  const bool by_head = mode == 3 || mode == 5, by_page = mode == 4 || mode == 5;
  const int64_t tokens = by_page ? shape.paged_key.block_size
                                 : static_cast<int64_t>(scale.size()) / (shape.batch * (by_head ? shape.kv_heads : 1));
  kv.token_scale_head_stride = by_head ? tokens : 0;
  if (by_page) kv.token_scale_block_stride = tokens * (by_head ? shape.kv_heads : 1);
}

void run(const FusedInfer& op) {
  const FusedInferShape shape = shape_of(op);
  if (op.output->numel() == 0) return;
  if (shape.paged) check_blocks(op, shape);
  const bool decoding = !shape.packed && shape.query.tokens == 1 && !has(op.query_rope);
  Attention attention;
  attention.heads = op.heads;
  attention.kv_heads = shape.kv_heads;
  attention.scale = static_cast<float>(op.scale);
  attention.query = op.query->data();
  attention.query_dtype = op.query->dtype;
  attention.query_token_stride = shape.query.token_stride;
  attention.query_head_stride = shape.query.head_stride;
  attention.key = shape.paged ? shape.paged_key.keys : contiguous_keys(shape.key, (*op.key)[0]);
  attention.value = shape.paged ? shape.paged_value.keys : contiguous_keys(shape.value, (*op.value)[0]);
  attention.key.data = (*op.key)[0].data();
  attention.value.data = (*op.value)[0].data();
  attention.block_size = shape.paged ? op.block_size : 0;
  const DenseInput mask(op.mask == nullptr ? TensorView{} : *op.mask);
  const DenseInput bias(op.pse_shift == nullptr ? TensorView{} : *op.pse_shift);
  attention.mask = mask_of(op, mask, decoding);
  attention.bias = bias_of(op, bias);
  set_rope(op, shape, attention);
  add_sequences(op, shape, decoding, attention);

  const std::vector<float> sinks = has(op.sinks) ? float_values(*op.sinks) : std::vector<float>{};
  if (!sinks.empty()) attention.sinks = sinks.data();
  CacheFactors factors;
  if (attention.key.dtype == ACL_INT8) {
    factors = cache_factors(op, shape);
    const bool together = !has(op.key_scale);
    factors.key.apply(attention.key, together ? op.antiquant_mode : op.key_mode, shape);
    factors.value.apply(attention.value, together ? op.antiquant_mode : op.value_mode, shape);
    const int64_t tokens = static_cast<int64_t>(std::max(factors.key.scale.size(), factors.value.scale.size())) / shape.batch;
    for (int64_t b = 0; b < shape.batch; ++b) attention.sequences[b].kv_token_begin = b * tokens;
  }
  if (op.wants_lse) {
    attention.lse = op.lse->data_as<float>();
    attention.lse_token_stride = shape.packed ? op.heads : 1;
    attention.lse_head_stride = shape.packed ? 1 : shape.query.tokens;
    std::fill_n(attention.lse, op.lse->numel(), INFINITY);
  } else if (has(op.lse) && op.lse->dtype == ACL_FLOAT) {
    std::fill_n(op.lse->data_as<float>(), op.lse->numel(), 0.0f);
  }
  std::vector<float> unrounded;
  attention.output = op.output->data();
  attention.output_dtype = op.output->dtype;
  attention.output_token_stride = shape.output.token_stride;
  attention.output_head_stride = shape.output.head_stride;
  if (op.output->dtype == ACL_INT8) {
    unrounded.assign(op.output->numel(), 0.0f);
    attention.output = unrounded.data();
    attention.output_dtype = ACL_FLOAT;
  }
  const bool padded = std::any_of(shape.query_lengths.begin(), shape.query_lengths.end(),
                                  [&](int64_t length) { return !shape.packed && length < shape.query.tokens; });
  if (padded) std::memset(attention.output, 0, op.output->numel() * element_bits(attention.output_dtype) / 8);
  if (op.key->size() > 1) {
    attend_to_list(op, shape, attention);
  } else {
    emulator::attention(attention);
  }
  if (!unrounded.empty()) quantize_output(op, shape, unrounded);
}

Work work_of(const FusedInfer& op) {
  const FusedInferShape shape = shape_of(op);
  Work work;
  double keys = 0;
  for (int64_t b = 0; b < shape.batch; ++b) {
    const auto rows = static_cast<double>(shape.query_lengths[b]), columns = static_cast<double>(shape.kv_lengths[b]);
    const double pairs = computed_pairs(op.sparse_mode >= 2, rows, columns);
    work.cube_flops += 2.0 * pairs * static_cast<double>(op.heads * (shape.query.dim + shape.value_dim()));
    work.vector_flops += 6.0 * pairs * static_cast<double>(op.heads);
    keys += columns;
  }
  const double kv_bytes = static_cast<double>(element_bits((*op.key)[0].dtype)) / 8;
  work.read_bytes = keys * static_cast<double>(shape.kv_heads * (shape.key_dim() + shape.value_dim())) * kv_bytes +
                    static_cast<double>(size_in_bytes(op.query->sizes, op.query->dtype));
  work.written_bytes = static_cast<double>(size_in_bytes(op.output->sizes, op.output->dtype));
  return work;
}

// An estimate of its growth: what the library takes for itself on these chips, and partial results of each part of a context,
// rows of float32 and their sums.
Workspace workspace_of(const FusedInfer& op) {
  if (!enforces(Rule::kAttentionWorkspace)) return {};
  constexpr int64_t kLibraryBytes = 16 << 20, kPartTokens = 512;
  const FusedInferShape shape = shape_of(op);
  const int64_t row_bytes = op.heads * (shape.output.dim + 16) * 4;
  const auto bytes = [&](int64_t keys) {
    const int64_t parts = (keys + kPartTokens - 1) / kPartTokens;
    return static_cast<uint64_t>(kLibraryBytes + shape.batch * parts * row_bytes);
  };
  int64_t longest = 0;
  for (const int64_t length : shape.kv_lengths) longest = std::max(longest, length);
  const int64_t possible = shape.paged ? op.block_table->sizes[1] * op.block_size : longest;
  return {.bytes = bytes(longest), .most_bytes = bytes(std::max(longest, possible))};
}

}  // namespace emulator::aclnn
