// One attention core for every operator that has attention in it: aclnn's FusedInferAttentionScore and FlashAttentionScore
// families, ATB's SelfAttention and PagedAttention.
//
// Online softmax in fp32 over tiles of keys: no tensor of size query_length x key_length exists. Strides are in elements.
#pragma once

#include <acl/acl.h>

#include <cstdint>
#include <vector>

namespace emulator {

// Keys or values. Feature d of head h of token t of a sequence is at
//   origin + position(t) + h * head_stride + d / 16 * chunk_stride + d % 16
// where position(t) = t * token_stride for contiguous sequences, and
//   block_table[t / block_size] * block_stride + t % block_size * token_stride for paged ones.
// FRACTAL_NZ cache [blocks, heads * dim / 16, block_size, 16]: token_stride 16, chunk_stride block_size * 16,
// head_stride dim / 16 * chunk_stride, block_stride heads * dim * block_size.
struct KeyValue {
  const void* data = nullptr;
  aclDataType dtype = ACL_FLOAT16;  // float16, bfloat16, float32 or int8
  int64_t dim = 0;                  // per head
  int64_t token_stride = 0;
  int64_t head_stride = 0;
  int64_t chunk_stride = 16;
  int64_t block_stride = 0;
  // int8 only: value = (stored + offset) * scale, either per channel [kv_heads * dim] or per token. A token's factor is at
  //   sequence.kv_token_begin + t + h * token_scale_head_stride                       (token_scale_block_stride 0), or
  //   block_table[t / block_size] * token_scale_block_stride + t % block_size + h * token_scale_head_stride.
  const float* channel_scale = nullptr;
  const float* channel_offset = nullptr;
  const float* token_scale = nullptr;
  const float* token_offset = nullptr;
  int64_t token_scale_head_stride = 0;
  int64_t token_scale_block_stride = 0;
};

KeyValue nd_paged_cache(const void* data, aclDataType dtype, int64_t kv_heads, int64_t dim, int64_t block_size);
KeyValue nz_paged_cache(const void* data, aclDataType dtype, int64_t kv_heads, int64_t dim, int64_t block_size);

// Which keys a query row may see, before any explicit mask: row i sees key j iff
//   i + shift - left <= j <= i + shift + right.
// Causal aligned to the last key (chunked prefill, decode): shift = kv_length - query_length, right = 0.
struct Band {
  int64_t shift = 0;
  int64_t left = INT64_MAX / 4;
  int64_t right = INT64_MAX / 4;
};

struct Sequence {
  int64_t query_length = 0;
  int64_t kv_length = 0;
  int64_t query_offset = 0;   // elements from Attention::query to this sequence's first row
  int64_t output_offset = 0;  // elements from Attention::output
  int64_t lse_offset = 0;     // elements from Attention::lse
  int64_t query_rope_offset = 0;
  int64_t key_offset = 0;     // elements from key.data (contiguous; 0 for paged)
  int64_t value_offset = 0;
  int64_t key_rope_offset = 0;
  int64_t kv_token_begin = 0;             // index of its first token in token_scale
  const int32_t* block_table = nullptr;   // paged: one id per block_size tokens
  int64_t mask_offset = 0;                // elements from Mask::data to the row of query 0, column of key mask_key_begin
  int64_t mask_key_begin = 0;             // earlier keys are not masked (multiple of 16): the mask covers a tail only
  int64_t bias_offset = 0;                // elements from bias.data to the row of query 0, column of key 0
  Band band;
};

// An explicit mask, read element by element: nothing is assumed of its contents.
struct Mask {
  enum class Kind {
    kNone,
    kAdditive,    // float16/bfloat16/float32 added to the scaled score
    kExclude,     // bool/int8/uint8: non-zero hides the key
  };
  Kind kind = Kind::kNone;
  const void* data = nullptr;
  aclDataType dtype = ACL_BOOL;
  int64_t row_stride = 0;
  int64_t head_stride = 0;    // per query head; 0 if shared
  int64_t chunk_stride = 16;  // as KeyValue's: block_rows * 16 for a FRACTAL_NZ mask
  float factor = 1.0f;        // multiplies an additive mask (ALiBi slopes are head_factor)
  const float* head_factor = nullptr;
  // A compressed mask (2048x2048 or 128x128) stands for one of any size that depends on j - i only: an edge of the band is
  // read at mask[r][c] with c - r = j - (i + shift + right), clamped into the mask. compressed_size 0: not compressed.
  int64_t compressed_size = 0;
};

struct Attention {
  int64_t heads = 0;
  int64_t kv_heads = 0;  // divides heads
  float scale = 1.0f;

  const void* query = nullptr;
  aclDataType query_dtype = ACL_FLOAT16;
  int64_t query_token_stride = 0;
  int64_t query_head_stride = 0;

  KeyValue key;
  KeyValue value;
  int64_t block_size = 0;  // 0: contiguous

  // Multi-head latent attention: a second, rotary part of queries and keys whose product is added to the scores.
  const void* query_rope = nullptr;
  int64_t query_rope_token_stride = 0;
  int64_t query_rope_head_stride = 0;
  KeyValue key_rope;

  Mask mask;
  Mask bias;  // kAdditive, not compressed: a position bias beside the mask
  const float* sinks = nullptr;  // [heads]: a logit that takes part in the softmax and has no value

  void* output = nullptr;  // value.dim elements a head
  aclDataType output_dtype = ACL_FLOAT16;
  int64_t output_token_stride = 0;
  int64_t output_head_stride = 0;

  float* lse = nullptr;  // log of the sum of exponentials, optional; +inf for a row that sees no key (its output is 0)
  float* row_max = nullptr;  // its parts, optional: the largest score and the sum of exponentials relative to it
  float* row_sum = nullptr;
  int64_t lse_token_stride = 0;  // of all three
  int64_t lse_head_stride = 0;

  std::vector<Sequence> sequences;
};

// Throws Failure for an unsupported dtype. Pointers are CPU addresses (host_address).
void attention(const Attention& attention);

// Copies token rows into a paged cache: token t of `source` ([tokens, heads, dim], strides given) goes to slot slots[t];
// slots below 0 are skipped. The cache's element size equals the source's.
struct CacheWrite {
  const void* source = nullptr;
  int64_t tokens = 0;
  int64_t heads = 0;
  int64_t element_bytes = 2;
  int64_t source_token_stride = 0;
  int64_t source_head_stride = 0;
  KeyValue cache;  // data is written
  int64_t block_size = 0;
  int64_t block_count = 0;  // a slot beyond it throws Failure (kAicoreException), as an MTE out-of-range access would
  const void* slots = nullptr;
  aclDataType slots_dtype = ACL_INT32;
};

void write_cache(const CacheWrite& write);

}  // namespace emulator
