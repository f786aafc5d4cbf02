// FlashAttentionScore and FlashAttentionVarLenScore: attention over whole sequences, the forward pass of training that
// torch's scaled_dot_product_attention and npu_fusion_attention run in inference too. Dropout is refused.
// Semantics and limits: aclnnFlashAttentionScore(V2).md and aclnnFlashAttentionVarLenScore.md of hicann/ops-transformer.
#include <algorithm>
#include <string>
#include <vector>

#include "aclnn/kernels/attention_layout.h"
#include "aclnn/kernels/attention_sparse.h"
#include "aclnn/operator.h"
#include "aclnn_arguments.h"
#include "math/convert.h"

namespace emulator::aclnn {

namespace {

constexpr int64_t kMaxHeads = 256;
constexpr int64_t kMaxHeadSize = 768;
constexpr int64_t kStatisticsWidth = 8;  // softmaxMaxOut and softmaxSumOut repeat each row's value this often

// The union of the versions' arguments; what a version lacks keeps its default.
struct Flash {
  const TensorView& query;
  const TensorView& key;
  const TensorView& value;
  const TensorView& position_bias;
  const TensorView& drop_mask;
  const TensorView& mask;
  const IntArray& prefix;
  double scale;
  double keep_probability;
  int64_t left_tokens, right_tokens;
  int64_t heads;
  std::string_view layout;
  int64_t sparse_mode;
  const TensorView& softmax_max;
  const TensorView& softmax_sum;
  const TensorView& output;
  const IntArray* query_ends = nullptr;  // TND: where each sequence ends
  const IntArray* kv_ends = nullptr;
  int64_t bias_type = 1;  // 1: scale * (scores + bias), 0: scale * scores + bias, more: made on the chip
  std::string_view statistics_layout = "";  // TND: "same_as_input" is token by token, "" head by head
  const TensorView* sinks = nullptr;  // [heads] float32
  const TensorView* query_rope = nullptr;  // the rotary part of queries and keys, in the layout of the others
  const TensorView* key_rope = nullptr;
};

template <class Args>
Flash from(const Args& a) {
  Flash op{a.query, a.key, a.value, a.realShiftOptional, a.dropMaskOptional, a.attenMaskOptional, a.prefixOptional,
           a.scaleValue, a.keepProb, a.preTokens, a.nextTokens, a.headNum, a.inputLayout, a.sparseMode,
           a.softmaxMaxOut, a.softmaxSumOut, a.attentionOutOut};
  if constexpr (requires { a.actualSeqQLenOptional; }) {
    op.query_ends = &a.actualSeqQLenOptional;
    op.kv_ends = &a.actualSeqKvLenOptional;
  }
  if constexpr (requires { a.pseType; }) op.bias_type = a.pseType;
  if constexpr (requires { a.softmaxOutLayout; }) op.statistics_layout = a.softmaxOutLayout;
  if constexpr (requires { a.sinkOptional; }) op.sinks = &a.sinkOptional;
  if constexpr (requires { a.queryRope; }) {
    op.query_rope = &a.queryRope;
    op.key_rope = &a.keyRope;
  }
  return op;
}

struct FlashShape {
  HeadLayout query, key, value, output;
  bool packed = false;
  std::vector<int64_t> query_begins, query_lengths, kv_begins, kv_lengths;
};

int64_t key_heads(const Flash& op, const HeadLayout& query) {
  if (op.layout == "BSH" || op.layout == "SBH") return op.key.sizes.back(0) / query.dim;
  if (op.layout == "BNSD" || op.layout == "TND") return op.key.sizes[1];
  return op.key.sizes[2];
}

void add_packed(const IntArray* ends, const char* name, int64_t tokens, std::vector<int64_t>& begins,
                std::vector<int64_t>& lengths) {
  require(ends != nullptr && ends->size() > 0, "%s must be given in layout TND.", name);
  int64_t begin = 0;
  for (int64_t end : *ends) {
    require(end >= begin && end <= tokens, "%s must not fall and must end at most at %lld tokens, but holds %lld after %lld.",
            name, static_cast<long long>(tokens), static_cast<long long>(end), static_cast<long long>(begin));
    begins.push_back(begin);
    lengths.push_back(end - begin);
    begin = end;
  }
}

FlashShape shape_of(const Flash& op) {
  FlashShape shape;
  shape.packed = op.layout == "TND";
  require(op.heads > 0 && op.heads <= kMaxHeads, "headNum is %lld, but must be 1 to 256.", static_cast<long long>(op.heads));
  shape.query = head_layout(op.layout, op.query, "query", op.heads);
  const int64_t kv_heads = key_heads(op, shape.query);
  require(kv_heads > 0 && op.heads % kv_heads == 0, "headNum %lld must be a multiple of the %lld heads of key.",
          static_cast<long long>(op.heads), static_cast<long long>(kv_heads));
  shape.key = head_layout(op.layout, op.key, "key", kv_heads);
  shape.value = head_layout(op.layout, op.value, "value", kv_heads);
  shape.output = head_layout(op.layout, op.output, "attentionOut", op.heads);
  if (shape.packed) {
    add_packed(op.query_ends, "actualSeqQLen", shape.query.tokens, shape.query_begins, shape.query_lengths);
    add_packed(op.kv_ends, "actualSeqKvLen", shape.key.tokens, shape.kv_begins, shape.kv_lengths);
    require(shape.query_lengths.size() == shape.kv_lengths.size(),
            "actualSeqQLen and actualSeqKvLen must have one entry a sequence each, but have %zu and %zu.",
            shape.query_lengths.size(), shape.kv_lengths.size());
  } else {
    shape.query_lengths.assign(shape.query.batch, shape.query.tokens);
    shape.kv_lengths.assign(shape.query.batch, shape.key.tokens);
    shape.query_begins.assign(shape.query.batch, 0);
    shape.kv_begins.assign(shape.query.batch, 0);
  }
  return shape;
}

bool is_compressed(const Flash& op) { return op.sparse_mode >= 2 && op.sparse_mode <= 4; }

// [B,N,Sq,Skv], [B,1,Sq,Skv], [1,1,Sq,Skv] or [Sq,Skv], the lengths of the longest sequence in layout TND.
void check_mask(const Flash& op, const FlashShape& shape) {
  if (!has(&op.mask)) return;
  require_dtype(op.mask, "attenMask", {ACL_BOOL, ACL_UINT8});
  require(op.mask.rank() == 2 || op.mask.rank() == 4, "attenMask has %d dimensions, but must have 2 or 4.", op.mask.rank());
  if (is_compressed(op)) {
    require(op.mask.sizes.back(0) == kCompressedMask && op.mask.sizes.back(1) == kCompressedMask,
            "attenMask is %s, but sparseMode %lld takes the compressed mask of 2048 x 2048.", to_string(op.mask.sizes).c_str(),
            static_cast<long long>(op.sparse_mode));
    return;
  }
  const int64_t rows = *std::max_element(shape.query_lengths.begin(), shape.query_lengths.end());
  const int64_t columns = *std::max_element(shape.kv_lengths.begin(), shape.kv_lengths.end());
  const auto one_or = [&](int64_t size, int64_t full) { return size == 1 || size == full; };
  const bool fits = op.mask.sizes.back(0) == columns && op.mask.sizes.back(1) == rows &&
                    (op.mask.rank() == 2 ||
                     (one_or(op.mask.sizes[0], shape.query.batch) && one_or(op.mask.sizes[1], op.heads)));
  require(fits, "attenMask is %s, but must end in [%lld, %lld] and fit batch and heads before.",
          to_string(op.mask.sizes).c_str(), static_cast<long long>(rows), static_cast<long long>(columns));
}

void check_bias(const Flash& op, const FlashShape& shape) {
  if (!has(&op.position_bias)) return;
  require(op.bias_type == 0 || op.bias_type == 1, "the emulator does not make position biases itself (pseType %lld).",
          static_cast<long long>(op.bias_type));
  require(!shape.packed, "the emulator does not implement realShift in layout TND.");
  require_same_dtype(op.position_bias, "realShift", op.query, "query");
  require_rank(op.position_bias, "realShift", 4, 4);
  const Dims& sizes = op.position_bias.sizes;
  require((sizes[0] == 1 || sizes[0] == shape.query.batch) && sizes[1] == op.heads &&
              (sizes[2] == 1 || sizes[2] == shape.query.tokens) && sizes[3] == shape.key.tokens,
          "realShift is %s, but must be [B,N,Sq,Skv], [B,N,1,Skv] or [1,N,Sq,Skv].", to_string(sizes).c_str());
}

void check(const Flash& op) {
  require_dtype(op.query, "query", {ACL_FLOAT16, ACL_BF16, ACL_FLOAT});
  require_same_dtype(op.key, "key", op.query, "query");
  require_same_dtype(op.value, "value", op.query, "query");
  require_same_dtype(op.output, "attentionOut", op.query, "query");
  require(op.statistics_layout.empty() || op.statistics_layout == "same_as_input", "softmaxOutLayout must be empty or \"same_as_input\".");
  if (has(op.sinks)) {
    require_dtype(*op.sinks, "sink", {ACL_FLOAT});
    require_sizes(*op.sinks, "sink", {op.heads});
  }
  require(has(op.query_rope) == has(op.key_rope), "queryRope and keyRope must both be given or both be null.");
  if (has(op.query_rope)) {
    require_same_dtype(*op.query_rope, "queryRope", op.query, "query");
    require_same_dtype(*op.key_rope, "keyRope", op.key, "key");
  }
  require(op.keep_probability == 1.0 && !has(&op.drop_mask), "the emulator does not implement dropout (keepProb %g).",
          op.keep_probability);
  require(op.sparse_mode >= 0 && op.sparse_mode <= 4, "the emulator implements sparseMode 0 to 4, not %lld.",
          static_cast<long long>(op.sparse_mode));
  require(op.prefix.size() == 0, "prefix belongs to sparseMode 5 and 6, not %lld.", static_cast<long long>(op.sparse_mode));
  const FlashShape shape = shape_of(op);
  require(shape.query.dim == shape.key.dim && shape.key.dim >= shape.value.dim && shape.query.dim <= kMaxHeadSize,
          "the head sizes of query, key and value are %lld, %lld and %lld, but must be equal (value's may be smaller) and at "
          "most 768.",
          static_cast<long long>(shape.query.dim), static_cast<long long>(shape.key.dim),
          static_cast<long long>(shape.value.dim));
  require(shape.key.tokens == shape.value.tokens && shape.query.batch == shape.key.batch &&
              shape.key.batch == shape.value.batch,
          "query %s, key %s and value %s do not fit one another in layout %s.", to_string(op.query.sizes).c_str(),
          to_string(op.key.sizes).c_str(), to_string(op.value.sizes).c_str(), std::string(op.layout).c_str());
  require(shape.output.tokens == shape.query.tokens && shape.output.dim == shape.value.dim,
          "attentionOut %s does not fit query %s.", to_string(op.output.sizes).c_str(), to_string(op.query.sizes).c_str());
  check_mask(op, shape);
  check_bias(op, shape);
}

// sparseMode and the token counts have no effect without a mask.
Band band_of(const Flash& op, int64_t query_length, int64_t kv_length) {
  if (!has(&op.mask) || op.sparse_mode == 1) return {};
  return sparse_band(op.sparse_mode, op.left_tokens, op.right_tokens, query_length, kv_length);
}

Mask mask_of(const Flash& op) {
  Mask mask;
  if (!has(&op.mask)) return mask;
  mask.kind = Mask::Kind::kExclude;
  mask.data = op.mask.data();
  mask.dtype = op.mask.dtype;
  mask.row_stride = op.mask.strides.back(1);
  if (is_compressed(op)) {
    mask.compressed_size = kCompressedMask;
  } else if (op.mask.rank() == 4 && op.mask.sizes[1] > 1) {
    mask.head_stride = op.mask.strides[1];
  }
  return mask;
}

Mask bias_of(const Flash& op) {
  Mask bias;
  if (!has(&op.position_bias)) return bias;
  bias.kind = Mask::Kind::kAdditive;
  bias.data = op.position_bias.data();
  bias.dtype = op.position_bias.dtype;
  bias.row_stride = op.position_bias.sizes[2] > 1 ? op.position_bias.strides[2] : 0;
  bias.head_stride = op.position_bias.strides[1];
  bias.factor = op.bias_type == 1 ? static_cast<float>(op.scale) : 1.0f;
  return bias;
}

int64_t batch_stride(const TensorView& tensor) {
  return has(&tensor) && tensor.rank() == 4 && tensor.sizes[0] > 1 ? tensor.strides[0] : 0;
}

void set_rope(const Flash& op, const FlashShape& shape, Attention& attention) {
  if (!has(op.query_rope)) return;
  const HeadLayout query = head_layout(op.layout, *op.query_rope, "queryRope", op.heads);
  const HeadLayout key = head_layout(op.layout, *op.key_rope, "keyRope", shape.key.heads);
  attention.query_rope = op.query_rope->data();
  attention.query_rope_token_stride = query.token_stride;
  attention.query_rope_head_stride = query.head_stride;
  attention.key_rope = contiguous_keys(key, *op.key_rope);
  attention.key_rope.data = op.key_rope->data();
  for (size_t i = 0; i < attention.sequences.size(); ++i) {
    const int64_t row = shape.packed ? 0 : static_cast<int64_t>(i);
    Sequence& s = attention.sequences[i];
    s.query_rope_offset = row * query.batch_stride + shape.query_begins[i] * query.token_stride;
    s.key_rope_offset = row * key.batch_stride + shape.kv_begins[i] * key.token_stride;
  }
}

// Every value kStatisticsWidth times: [B, N, S, 8]; in layout TND [N, T, 8] or [T, N, 8].
void write_statistics(const std::vector<float>& values, const TensorView& out) {
  if (!has(&out)) return;
  auto* data = out.data_as<float>();
  for (size_t i = 0; i < values.size(); ++i) std::fill_n(data + i * kStatisticsWidth, kStatisticsWidth, values[i]);
}

void run(const Flash& op) {
  const FlashShape shape = shape_of(op);
  if (op.output.numel() == 0) return;
  Attention attention;
  attention.heads = op.heads;
  attention.kv_heads = shape.key.heads;
  attention.scale = static_cast<float>(op.scale);
  attention.query = op.query.data();
  attention.query_dtype = op.query.dtype;
  attention.query_token_stride = shape.query.token_stride;
  attention.query_head_stride = shape.query.head_stride;
  attention.key = contiguous_keys(shape.key, op.key);
  attention.value = contiguous_keys(shape.value, op.value);
  attention.key.data = op.key.data();
  attention.value.data = op.value.data();
  attention.mask = mask_of(op);
  attention.bias = bias_of(op);
  attention.output = op.output.data();
  attention.output_dtype = op.output.dtype;
  attention.output_token_stride = shape.output.token_stride;
  attention.output_head_stride = shape.output.head_stride;
  const int64_t rows = shape.query.batch * shape.query.tokens * op.heads;
  std::vector<float> row_max(rows), row_sum(rows);
  attention.row_max = row_max.data();
  attention.row_sum = row_sum.data();
  const bool by_token = shape.packed && op.statistics_layout == "same_as_input";
  attention.lse_token_stride = by_token ? op.heads : 1;
  attention.lse_head_stride = by_token ? 1 : shape.query.tokens;
  for (size_t i = 0; i < shape.query_lengths.size(); ++i) {
    const auto b = static_cast<int64_t>(i);
    const int64_t row = shape.packed ? 0 : b;
    Sequence s;
    s.query_length = shape.query_lengths[i];
    s.kv_length = shape.kv_lengths[i];
    s.query_offset = row * shape.query.batch_stride + shape.query_begins[i] * shape.query.token_stride;
    s.output_offset = row * shape.output.batch_stride + shape.query_begins[i] * shape.output.token_stride;
    s.key_offset = row * shape.key.batch_stride + shape.kv_begins[i] * shape.key.token_stride;
    s.value_offset = row * shape.value.batch_stride + shape.kv_begins[i] * shape.value.token_stride;
    s.lse_offset = shape.packed ? shape.query_begins[i] * attention.lse_token_stride : b * op.heads * shape.query.tokens;
    s.mask_offset = is_compressed(op) ? 0 : b * batch_stride(op.mask);
    s.bias_offset = b * batch_stride(op.position_bias);
    s.band = band_of(op, s.query_length, s.kv_length);
    attention.sequences.push_back(s);
  }
  std::vector<float> sinks(has(op.sinks) ? op.heads : 0);
  if (!sinks.empty()) {
    to_float(op.sinks->data(), op.sinks->dtype, sinks.data(), op.heads);
    attention.sinks = sinks.data();
  }
  set_rope(op, shape, attention);
  emulator::attention(attention);
  write_statistics(row_max, op.softmax_max);
  write_statistics(row_sum, op.softmax_sum);
}

Work work_of(const Flash& op) {
  const FlashShape shape = shape_of(op);
  Work work;
  for (size_t i = 0; i < shape.query_lengths.size(); ++i) {
    const auto queries = static_cast<double>(shape.query_lengths[i]), keys = static_cast<double>(shape.kv_lengths[i]);
    const double pairs = computed_pairs(is_compressed(op), queries, keys);
    work.cube_flops += 2.0 * pairs * static_cast<double>(op.heads * (shape.query.dim + shape.value.dim));
    work.vector_flops += 6.0 * pairs * static_cast<double>(op.heads);
  }
  for (const TensorView* tensor : {&op.query, &op.key, &op.value}) {
    work.read_bytes += static_cast<double>(size_in_bytes(tensor->sizes, tensor->dtype));
  }
  work.written_bytes = static_cast<double>(size_in_bytes(op.output.sizes, op.output.dtype));
  return work;
}

}  // namespace

#define FLASH_ATTENTION(op)                  \
  ACLNN_CHECK(op) { check(from(a)); }       \
  ACLNN_KERNEL(op) { run(from(a)); }         \
  ACLNN_WORK(op) { return work_of(from(a)); }

FLASH_ATTENTION(FlashAttentionScore)
FLASH_ATTENTION(FlashAttentionScoreV2)
FLASH_ATTENTION(FlashAttentionVarLenScore)
FLASH_ATTENTION(FlashAttentionVarLenScoreV2)
FLASH_ATTENTION(FlashAttentionScoreV3)
FLASH_ATTENTION(FlashAttentionVarLenScoreV3)
FLASH_ATTENTION(FlashAttentionVarLenScoreV4)
FLASH_ATTENTION(FlashAttentionVarLenScoreV5)

}  // namespace emulator::aclnn
