// Shapes and sequence lengths of FusedInferAttentionScore.
#include <algorithm>

#include "aclnn/kernels/attention_fused_infer.h"

namespace emulator::aclnn {

namespace {

bool given(const IntArray* lengths) { return lengths != nullptr && lengths->present() && !lengths->empty(); }

// One length for each sequence: an array of one serves all, a longer one gives its first elements.
std::vector<int64_t> per_sequence(const IntArray& lengths, int64_t batch, const char* name) {
  const auto count = static_cast<int64_t>(lengths.size());
  require(count == 1 || count >= batch, "%s has %lld elements, but must have 1 or at least %lld.", name,
          static_cast<long long>(count), static_cast<long long>(batch));
  std::vector<int64_t> result(batch);
  for (int64_t b = 0; b < batch; ++b) result[b] = lengths[count == 1 ? 0 : b];
  return result;
}

// Ends of packed sequences as lengths and first tokens.
void split_packed(const IntArray& ends, const char* name, std::vector<int64_t>& lengths, std::vector<int64_t>& begins) {
  int64_t previous = 0;
  for (const int64_t end : ends) {
    require(end >= previous, "%s must not decrease (it holds cumulative lengths), but %lld follows %lld.", name,
            static_cast<long long>(end), static_cast<long long>(previous));
    begins.push_back(previous);
    lengths.push_back(end - previous);
    previous = end;
  }
}

void query_lengths(const FusedInfer& op, FusedInferShape& shape) {
  if (shape.packed) {
    require(given(op.query_lengths), "actualSeqLengths is required by layout %s.", std::string(op.layout).c_str());
    split_packed(*op.query_lengths, "actualSeqLengths", shape.query_lengths, shape.query_begins);
    shape.batch = static_cast<int64_t>(shape.query_lengths.size());
    const int64_t total = op.query_lengths->data()[shape.batch - 1];
    require(total == shape.query.tokens, "query has %lld tokens, but the last element of actualSeqLengths is %lld; they must be equal.",
            static_cast<long long>(shape.query.tokens), static_cast<long long>(total));
    return;
  }
  shape.batch = shape.query.batch;
  shape.query_begins.assign(shape.batch, 0);
  shape.query_lengths.assign(shape.batch, shape.query.tokens);
  // With one query a sequence the operator takes the decoding path, which ignores the argument.
  if (shape.query.tokens > 1 && given(op.query_lengths)) {
    shape.query_lengths = per_sequence(*op.query_lengths, shape.batch, "actualSeqLengths");
  }
}

void kv_lengths(const FusedInfer& op, FusedInferShape& shape) {
  shape.kv_begins.assign(shape.batch, 0);
  if (shape.paged) {
    require(given(op.kv_lengths), "actualSeqLengthsKv is required with a block table.");
    shape.kv_lengths = per_sequence(*op.kv_lengths, shape.batch, "actualSeqLengthsKv");
    return;
  }
  if (shape.packed) {
    require(given(op.kv_lengths), "actualSeqLengthsKv is required by layout %s.", std::string(op.layout).c_str());
    shape.kv_begins.clear();
    split_packed(*op.kv_lengths, "actualSeqLengthsKv", shape.kv_lengths, shape.kv_begins);
    require(static_cast<int64_t>(shape.kv_lengths.size()) == shape.batch,
            "actualSeqLengths has %lld elements and actualSeqLengthsKv %zu, but they must be equal.",
            static_cast<long long>(shape.batch), shape.kv_lengths.size());
    return;
  }
  shape.kv_lengths.resize(shape.batch);
  require(op.key->size() == 1 || static_cast<int64_t>(op.key->size()) == shape.batch,
          "key is a list of %zu tensors for %lld sequences.", op.key->size(), static_cast<long long>(shape.batch));
  for (int64_t b = 0; b < shape.batch; ++b) {  // a list has one tensor for each sequence, of its own length
    shape.kv_lengths[b] = op.key->size() == 1
                              ? shape.key.tokens
                              : head_layout(query_layout(op.layout), (*op.key)[b], "key", shape.kv_heads).tokens;
  }
  if (given(op.kv_lengths)) shape.kv_lengths = per_sequence(*op.kv_lengths, shape.batch, "actualSeqLengthsKv");
}

}  // namespace

FusedInferShape shape_of(const FusedInfer& op) {
  FusedInferShape shape;
  shape.kv_heads = op.kv_heads == 0 ? op.heads : op.kv_heads;
  shape.paged = has(op.block_table);
  shape.packed = is_packed(query_layout(op.layout));
  shape.query = head_layout(query_layout(op.layout), *op.query, "query", op.heads);
  shape.output = head_layout(output_layout(op.layout), *op.output, "attentionOut", op.heads);
  if (shape.paged) {
    shape.paged_key = paged_layout((*op.key)[0], "key", shape.kv_heads);
    shape.paged_value = paged_layout((*op.value)[0], "value", shape.kv_heads);
  } else {
    shape.key = head_layout(query_layout(op.layout), (*op.key)[0], "key", shape.kv_heads);
    shape.value = head_layout(query_layout(op.layout), (*op.value)[0], "value", shape.kv_heads);
  }
  query_lengths(op, shape);
  kv_lengths(op, shape);
  return shape;
}

}  // namespace emulator::aclnn
