// Attention by tiles: a group of query rows that share a key/value head against up to 128 keys at a time, online softmax.
#include "math/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/errors.h"
#include "core/tensor.h"
#include "math/convert.h"
#include "math/gemm.h"
#include "math/kernels.h"
#include "math/parallel.h"
#include "math/scratch.h"

namespace emulator {

namespace {

constexpr int64_t kKeyTile = 128;
constexpr int64_t kRowTarget = 64;       // query rows (positions x heads of the group) per tile
constexpr double kParallelWork = 400e3;  // multiply-adds worth a thread
constexpr float kInfinity = std::numeric_limits<float>::infinity();

int64_t byte_size(aclDataType dtype) { return element_bits(dtype) / 8; }

// One tile of query rows: row r is position first + r / group of head kv_head * group + r % group.
struct Rows {
  const Attention& op;
  const Sequence& sequence;
  int64_t kv_head;
  int64_t group;
  int64_t first;
  int64_t positions;

  int64_t count() const { return positions * group; }
  int64_t position(int64_t r) const { return first + r / group; }
  int64_t head(int64_t r) const { return kv_head * group + r % group; }
};

// A run of keys within one block (or anywhere, if contiguous).
struct Keys {
  int64_t begin;
  int64_t count;
};

int64_t offset_of(const Attention& op, const KeyValue& kv, const Sequence& s, int64_t sequence_offset, int64_t token,
                  int64_t kv_head) {
  const int64_t head = kv_head * kv.head_stride;
  if (op.block_size == 0) return sequence_offset + token * kv.token_stride + head;
  return s.block_table[token / op.block_size] * kv.block_stride + token % op.block_size * kv.token_stride + head;
}

const void* address_of(const KeyValue& kv, int64_t offset) {
  return static_cast<const char*>(kv.data) + offset * byte_size(kv.dtype);
}

int64_t token_index(const Attention& op, const KeyValue& kv, const Sequence& s, int64_t token, int64_t kv_head) {
  const int64_t head = kv_head * kv.token_scale_head_stride;
  if (kv.token_scale_block_stride == 0) return s.kv_token_begin + token + head;
  return s.block_table[token / op.block_size] * kv.token_scale_block_stride + token % op.block_size + head;
}

// ---- Queries ----

struct Queries {
  float* data;
  int64_t stride;
  int64_t rope_begin;  // column at which the rotary part starts
};

void load_part(const Rows& rows, const void* source, aclDataType dtype, int64_t offset, int64_t token_stride,
               int64_t head_stride, int64_t dim, float* target, int64_t target_stride) {
  const int64_t padded = round_up(dim, 16);
  for (int64_t r = 0; r < rows.count(); ++r) {
    const int64_t at = offset + rows.position(r) * token_stride + rows.head(r) * head_stride;
    float* row = target + r * target_stride;
    to_float(static_cast<const char*>(source) + at * byte_size(dtype), dtype, row, dim);
    kernels().scale_row(row, dim, rows.op.scale);
    std::fill(row + dim, row + padded, 0.0f);
  }
}

Queries load_queries(const Rows& rows) {
  const Attention& op = rows.op;
  const int64_t main = round_up(op.key.dim, 16);
  const int64_t rope = op.query_rope == nullptr ? 0 : round_up(op.key_rope.dim, 16);
  const int64_t stride = main + rope + 16;
  float* data = scratch(ScratchSlot::kAttentionQuery, rows.count() * stride);
  load_part(rows, op.query, op.query_dtype, rows.sequence.query_offset, op.query_token_stride, op.query_head_stride,
            op.key.dim, data, stride);
  if (rope != 0) {
    load_part(rows, op.query_rope, op.query_dtype, rows.sequence.query_rope_offset, op.query_rope_token_stride,
              op.query_rope_head_stride, op.key_rope.dim, data + main, stride);
  }
  return {data, stride, main};
}

// ---- Keys and values ----

// An int8 operand packed as floats gets its scale and offset; columns or rows of the panel are tokens.
void dequantize(const Rows& rows, const KeyValue& kv, Keys keys, float* panel, int64_t width, bool tokens_along_columns) {
  const int64_t channel0 = rows.kv_head * kv.dim;
  for (int64_t t = 0; t < keys.count; ++t) {
    const bool by_token = kv.token_scale != nullptr;
    const int64_t token = by_token ? token_index(rows.op, kv, rows.sequence, keys.begin + t, rows.kv_head) : 0;
    for (int64_t d = 0; d < kv.dim; ++d) {
      float& value = tokens_along_columns ? panel[d * width + t] : panel[t * width + d];
      const int64_t index = by_token ? token : channel0 + d;
      const float* scale = by_token ? kv.token_scale : kv.channel_scale;
      const float* offset = by_token ? kv.token_offset : kv.channel_offset;
      if (offset != nullptr) value += offset[index];
      if (scale != nullptr) value *= scale[index];
    }
  }
}

void score_part(const Rows& rows, const KeyValue& kv, int64_t sequence_offset, Keys keys, const float* queries,
                int64_t query_stride, float* scores, bool accumulate) {
  const Kernels& k = kernels();
  const int64_t offset = offset_of(rows.op, kv, rows.sequence, sequence_offset, keys.begin, rows.kv_head);
  Product p;
  p.a = queries;
  p.a_stride = query_stride;
  p.rows = rows.count();
  p.c = scores;
  p.c_stride = kKeyTile;
  p.k = kv.dim;
  p.accumulate = accumulate;
  if (kv.dtype != ACL_INT8 && rows.count() <= k.direct_rows) {
    p.b = address_of(kv, offset);
    p.b_dtype = kv.dtype;
    p.line_stride = kv.token_stride;
    p.chunk_stride = kv.chunk_stride;
    p.columns = keys.count;
    return k.dot(p);
  }
  const int64_t width = round_up(keys.count, 16);
  float* panel = scratch(ScratchSlot::kAttentionKeys, kv.dim * width);
  k.pack({address_of(kv, offset), kv.dtype, true, kv.token_stride, kv.chunk_stride}, 0, kv.dim, 0, keys.count, panel, width);
  if (kv.dtype == ACL_INT8) dequantize(rows, kv, keys, panel, width, true);
  p.b = panel;
  p.line_stride = width;
  p.columns = width;
  k.outer(p);
}

void add_values(const Rows& rows, Keys keys, const float* weights, float* output, int64_t output_stride) {
  const Kernels& k = kernels();
  const KeyValue& kv = rows.op.value;
  const int64_t offset =
      offset_of(rows.op, kv, rows.sequence, rows.sequence.value_offset, keys.begin, rows.kv_head);
  Product p;
  p.a = weights;
  p.a_stride = kKeyTile;
  p.rows = rows.count();
  p.c = output;
  p.c_stride = output_stride;
  p.k = keys.count;
  p.accumulate = true;
  p.columns = round_up(kv.dim, 16);
  if (kv.dtype != ACL_INT8 && rows.count() <= k.direct_rows && kv.dim % 16 == 0) {
    p.b = address_of(kv, offset);
    p.b_dtype = kv.dtype;
    p.line_stride = kv.token_stride;
    p.chunk_stride = kv.chunk_stride;
    return k.outer(p);
  }
  float* panel = scratch(ScratchSlot::kAttentionKeys, keys.count * p.columns);
  k.pack({address_of(kv, offset), kv.dtype, false, kv.token_stride, kv.chunk_stride}, 0, keys.count, 0, kv.dim, panel,
         p.columns);
  if (kv.dtype == ACL_INT8) dequantize(rows, kv, keys, panel, p.columns, false);
  p.b = panel;
  p.line_stride = p.columns;
  k.outer(p);
}

// ---- Visibility ----

// The keys that any of these rows may see.
Keys visible_range(const Rows& rows) {
  const Band& band = rows.sequence.band;
  const int64_t last = rows.first + rows.positions - 1;
  const int64_t begin = std::max<int64_t>(0, rows.first + band.shift - band.left);
  const int64_t end = std::min(rows.sequence.kv_length, last + band.shift + band.right + 1);
  return {begin, std::max<int64_t>(0, end - begin)};
}

float mask_value(const Mask& mask, int64_t offset, int64_t row, int64_t column) {
  return load_float(mask.data, mask.dtype, offset + row * mask.row_stride + column / 16 * mask.chunk_stride + column % 16);
}

// Element of a compressed mask on the diagonal c - r = distance, near row `near_row`.
float compressed_value(const Mask& mask, int64_t near_row, int64_t distance) {
  const int64_t size = mask.compressed_size;
  int64_t row = near_row % size;
  int64_t column = row + distance;
  if (column < 0) {
    row -= column;
    column = 0;
  } else if (column >= size) {
    row -= column - size + 1;
    column = size - 1;
  }
  return mask_value(mask, 0, row, column);
}

// Hides what lies outside the band, reading the mask's own elements wherever they are within its reach.
void apply_compressed(const Rows& rows, Keys keys, int64_t r, float* scores) {
  const Mask& mask = rows.op.mask;
  const Band& band = rows.sequence.band;
  const int64_t diagonal = rows.position(r) + band.shift;
  for (int64_t t = 0; t < keys.count; ++t) {
    const int64_t above = keys.begin + t - diagonal - band.right;      // > 0: beyond the right edge
    const int64_t inside = keys.begin + t - diagonal + band.left + 1;  // <= 0: before the left edge
    if (std::abs(above) < mask.compressed_size) {
      const float value = compressed_value(mask, rows.position(r), above);
      if (mask.kind == Mask::Kind::kAdditive) scores[t] += value * mask.factor;
      else if (value != 0.0f) scores[t] = -kInfinity;
    } else if (above > 0) {
      scores[t] = -kInfinity;
    }
    if (std::abs(inside) < mask.compressed_size) {
      if (compressed_value(mask, rows.position(r), inside) == 0.0f) scores[t] = -kInfinity;
    } else if (inside <= 0) {
      scores[t] = -kInfinity;
    }
  }
}

// `offset` leads to the mask's element for query 0 and key `first_key`; earlier keys are left as they are.
void apply_explicit(const Rows& rows, const Mask& mask, int64_t offset, int64_t first_key, Keys keys, int64_t r, float* scores) {
  const int64_t skipped = std::clamp<int64_t>(first_key - keys.begin, 0, keys.count);
  const int64_t column = keys.begin + skipped - first_key;
  const int64_t count = keys.count - skipped;
  if (count == 0) return;
  scores += skipped;
  const int64_t head = rows.head(r);
  offset += head * mask.head_stride;
  const float factor = mask.factor * (mask.head_factor == nullptr ? 1.0f : mask.head_factor[head]);
  float* values = scratch(ScratchSlot::kRow, kKeyTile);
  if (mask.chunk_stride == 16) {
    const int64_t at = offset + rows.position(r) * mask.row_stride + column;
    to_float(static_cast<const char*>(mask.data) + at * byte_size(mask.dtype), mask.dtype, values, count);
  } else {
    for (int64_t t = 0; t < count; ++t) values[t] = mask_value(mask, offset, rows.position(r), column + t);
  }
  if (mask.kind == Mask::Kind::kAdditive) {
    for (int64_t t = 0; t < count; ++t) scores[t] += values[t] * factor;
  } else {
    for (int64_t t = 0; t < count; ++t) scores[t] = values[t] != 0.0f ? -kInfinity : scores[t];
  }
}

void apply_band(const Rows& rows, Keys keys, int64_t r, float* scores) {
  const Band& band = rows.sequence.band;
  const int64_t diagonal = rows.position(r) + band.shift - keys.begin;
  const int64_t begin = std::clamp<int64_t>(diagonal - band.left, 0, keys.count);
  const int64_t end = std::clamp<int64_t>(diagonal + band.right + 1, begin, keys.count);
  std::fill(scores, scores + begin, -kInfinity);
  std::fill(scores + end, scores + keys.count, -kInfinity);
}

bool wholly_inside_band(const Rows& rows, Keys keys) {
  const Band& band = rows.sequence.band;
  const int64_t last = rows.first + rows.positions - 1;
  return keys.begin + keys.count - 1 <= rows.first + band.shift + band.right && keys.begin >= last + band.shift - band.left;
}

void hide(const Rows& rows, Keys keys, float* scores) {
  const Mask& mask = rows.op.mask;
  const bool compressed = mask.kind != Mask::Kind::kNone && mask.compressed_size > 0;
  const bool inside = wholly_inside_band(rows, keys);
  for (int64_t r = 0; r < rows.count(); ++r) {
    float* row = scores + r * kKeyTile;
    if (rows.op.bias.kind != Mask::Kind::kNone) {
      apply_explicit(rows, rows.op.bias, rows.sequence.bias_offset, 0, keys, r, row);
    }
    if (compressed) {
      if (!inside) apply_compressed(rows, keys, r, row);
      continue;
    }
    if (!inside) apply_band(rows, keys, r, row);
    if (mask.kind != Mask::Kind::kNone) {
      apply_explicit(rows, mask, rows.sequence.mask_offset, rows.sequence.mask_key_begin, keys, r, row);
    }
  }
}

// ---- One tile of rows ----

struct Softmax {
  float largest = -kInfinity;
  float sum = 0.0f;
};

// Turns a row of scores into weights relative to the largest score so far, rescaling what was summed before.
void soften(float* scores, int64_t count, Softmax& state, float* output, int64_t output_dim) {
  const Kernels& k = kernels();
  const float largest = std::max(state.largest, k.row_max(scores, count));
  if (largest == -kInfinity) {
    std::fill_n(scores, count, 0.0f);
    return;
  }
  if (largest > state.largest) {
    const float shrink = std::exp(state.largest - largest);
    state.sum *= shrink;
    k.scale_row(output, output_dim, shrink);
    state.largest = largest;
  }
  state.sum += k.row_exp(scores, count, largest);
}

void write_rows(const Rows& rows, Softmax* states, float* output, int64_t stride) {
  const Attention& op = rows.op;
  for (int64_t r = 0; r < rows.count(); ++r) {
    Softmax& state = states[r];
    float* row = output + r * stride;
    const int64_t row_at = rows.sequence.lse_offset + rows.position(r) * op.lse_token_stride + rows.head(r) * op.lse_head_stride;
    if (op.lse != nullptr) op.lse[row_at] = state.sum > 0.0f ? state.largest + std::log(state.sum) : kInfinity;
    if (op.row_max != nullptr) op.row_max[row_at] = state.largest;
    if (op.row_sum != nullptr) op.row_sum[row_at] = state.sum;
    float denominator = state.sum;
    if (op.sinks != nullptr && state.sum > 0.0f) denominator += std::exp(op.sinks[rows.head(r)] - state.largest);
    kernels().scale_row(row, op.value.dim, denominator > 0.0f ? 1.0f / denominator : 0.0f);
    const int64_t at =
        rows.sequence.output_offset + rows.position(r) * op.output_token_stride + rows.head(r) * op.output_head_stride;
    from_float(row, static_cast<char*>(op.output) + at * byte_size(op.output_dtype), op.output_dtype, op.value.dim);
  }
}

void attend(const Rows& rows) {
  const Attention& op = rows.op;
  const Queries queries = load_queries(rows);
  const int64_t stride = round_up(op.value.dim, 16);
  float* scores = scratch(ScratchSlot::kAttentionScores, rows.count() * kKeyTile);
  float* output = scratch(ScratchSlot::kAttentionOutput, rows.count() * stride);
  std::fill_n(output, rows.count() * stride, 0.0f);
  std::vector<Softmax> states(rows.count());
  const Keys range = visible_range(rows);
  for (int64_t token = range.begin; token < range.begin + range.count;) {
    const int64_t block = op.block_size == 0 ? kKeyTile : op.block_size - token % op.block_size;
    const Keys keys{token, std::min({kKeyTile, block, range.begin + range.count - token})};
    score_part(rows, op.key, rows.sequence.key_offset, keys, queries.data, queries.stride, scores, false);
    if (op.query_rope != nullptr) {
      score_part(rows, op.key_rope, rows.sequence.key_rope_offset, keys, queries.data + queries.rope_begin, queries.stride,
                 scores, true);
    }
    hide(rows, keys, scores);
    for (int64_t r = 0; r < rows.count(); ++r) {
      soften(scores + r * kKeyTile, keys.count, states[r], output + r * stride, stride);
    }
    add_values(rows, keys, scores, output, stride);
    token += keys.count;
  }
  write_rows(rows, states.data(), output, stride);
}

void check(const Attention& op) {
  if (op.kv_heads <= 0 || op.heads % op.kv_heads != 0) {
    fail(kParamInvalid, "attention: %lld query heads are not a multiple of %lld key/value heads",
         static_cast<long long>(op.heads), static_cast<long long>(op.kv_heads));
  }
  for (const KeyValue* kv : {&op.key, &op.value}) {
    if (kv->dtype != ACL_FLOAT16 && kv->dtype != ACL_BF16 && kv->dtype != ACL_FLOAT && kv->dtype != ACL_INT8) {
      fail(kParamInvalid, "attention: keys and values of type %s are not supported", dtype_name(kv->dtype));
    }
  }
}

}  // namespace

KeyValue nd_paged_cache(const void* data, aclDataType dtype, int64_t kv_heads, int64_t dim, int64_t block_size) {
  KeyValue kv;
  kv.data = data;
  kv.dtype = dtype;
  kv.dim = dim;
  kv.token_stride = kv_heads * dim;
  kv.head_stride = dim;
  kv.block_stride = block_size * kv.token_stride;
  return kv;
}

KeyValue nz_paged_cache(const void* data, aclDataType dtype, int64_t kv_heads, int64_t dim, int64_t block_size) {
  KeyValue kv;
  kv.data = data;
  kv.dtype = dtype;
  kv.dim = dim;
  kv.token_stride = 16;
  kv.chunk_stride = block_size * 16;
  kv.head_stride = dim / 16 * kv.chunk_stride;
  kv.block_stride = kv_heads * dim * block_size;
  return kv;
}

void attention(const Attention& op) {
  check(op);
  const int64_t group = op.heads / op.kv_heads;
  const int64_t positions = std::max<int64_t>(1, kRowTarget / group);
  struct Item {
    const Sequence* sequence;
    int64_t kv_head;
    int64_t first;
  };
  std::vector<Item> items;
  double work = 0;
  for (const Sequence& s : op.sequences) {
    for (int64_t first = 0; first < s.query_length; first += positions) {
      for (int64_t head = 0; head < op.kv_heads; ++head) items.push_back({&s, head, first});
    }
    work += static_cast<double>(s.query_length) * s.kv_length * op.heads * (op.key.dim + op.value.dim);
  }
  if (items.empty()) return;
  const auto grain = static_cast<int64_t>(kParallelWork / (work / items.size() + 1)) + 1;
  parallel_for(0, static_cast<int64_t>(items.size()), grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto& [sequence, head, first] = items[i];
      attend({op, *sequence, head, group, first, std::min(positions, sequence->query_length - first)});
    }
  });
}

}  // namespace emulator
