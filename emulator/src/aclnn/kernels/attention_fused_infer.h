// FusedInferAttentionScore V2 to V5 (and IncreFlashAttention, PromptFlashAttention) as one operator.
// Semantics and limits: torch_npu's document of npu_fused_infer_attention_score, hicann/ops-transformer's tiling checks.
#pragma once

#include <string>
#include <vector>

#include "aclnn/kernels/attention_layout.h"
#include "aclnn/operator.h"

namespace emulator::aclnn {

// The union of the versions' arguments; what a version lacks keeps its default.
struct FusedInfer {
  const TensorView* query = nullptr;
  const TensorList* key = nullptr;
  const TensorList* value = nullptr;
  const TensorView* pse_shift = nullptr;
  const TensorView* mask = nullptr;
  const IntArray* query_lengths = nullptr;
  const IntArray* kv_lengths = nullptr;
  const TensorView* full_quant[3] = {};  // dequantScale1, quantScale1, dequantScale2: int8 queries
  const TensorView* quant_scale = nullptr;   // of an int8 output
  const TensorView* quant_offset = nullptr;
  const TensorView* antiquant_scale = nullptr;  // keys' and values' together
  const TensorView* antiquant_offset = nullptr;
  const TensorView* block_table = nullptr;
  const TensorView* query_padding = nullptr;
  const TensorView* kv_padding = nullptr;
  const TensorView* key_scale = nullptr;
  const TensorView* key_offset = nullptr;
  const TensorView* value_scale = nullptr;
  const TensorView* value_offset = nullptr;
  const TensorView* prefix = nullptr;
  const TensorView* query_rope = nullptr;
  const TensorView* key_rope = nullptr;
  const TensorView* query_scale = nullptr;
  const TensorView* sinks = nullptr;
  int64_t heads = 1;
  int64_t kv_heads = 0;
  double scale = 1.0;
  int64_t pre_tokens = INT32_MAX;
  int64_t next_tokens = INT32_MAX;
  std::string_view layout = "BSH";
  int64_t sparse_mode = 0;
  int64_t block_size = 0;
  int64_t antiquant_mode = 0;
  bool wants_lse = false;
  int64_t key_mode = 0;
  int64_t value_mode = 0;
  const TensorView* output = nullptr;
  const TensorView* lse = nullptr;
};

// Lengths and layouts that checks and kernel both need; throws Failure where they contradict one another.
struct FusedInferShape {
  HeadLayout query, output;
  HeadLayout key;          // contiguous keys and values
  HeadLayout value;
  PagedLayout paged_key;   // paged ones
  PagedLayout paged_value;
  bool paged = false;
  bool packed = false;     // TND or NTD
  int64_t batch = 0;
  int64_t kv_heads = 0;
  std::vector<int64_t> query_lengths;  // of each sequence
  std::vector<int64_t> query_begins;   // packed: its first token
  std::vector<int64_t> kv_lengths;
  std::vector<int64_t> kv_begins;
  int64_t key_dim() const { return paged ? paged_key.keys.dim : key.dim; }
  int64_t value_dim() const { return paged ? paged_value.keys.dim : value.dim; }
};
FusedInferShape shape_of(const FusedInfer& op);

// The int8 cache's factors as floats, in the order that math/attention.h wants.
struct Dequantization {
  std::vector<float> scale, offset;
  void apply(KeyValue& kv, int64_t mode, const FusedInferShape& shape);
};
Dequantization dequantization(const TensorView& scale, const TensorView* offset, int64_t mode, const FusedInferShape& shape,
                              int64_t dim);

void check(const FusedInfer& op);
void run(const FusedInfer& op);
Work work_of(const FusedInfer& op);

// Rule attention_workspace; none where it is off.
Workspace workspace_of(const FusedInfer& op);

}  // namespace emulator::aclnn
