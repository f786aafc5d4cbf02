#include "atb/paged_attention_launch.h"

#include <algorithm>
#include <cstring>

#include "atb/compressed_mask.h"
#include "silicon/rules.h"

namespace emulator {

using Parameters = ::atb::infer::PagedAttentionParam;

namespace {

// Scales of a dequantizing cache come as float32, or as the cube unit's form: float32 bits in the low half of an int64.
std::vector<float> read_scales(const ::atb::Tensor& tensor) {
  const int64_t count = element_count(tensor.desc);
  std::vector<float> scales(count);
  const auto* bytes = static_cast<const char*>(device_data(tensor));
  const int64_t stride = element_bits(tensor.desc.dtype) / 8;
  for (int64_t i = 0; i < count; ++i) std::memcpy(&scales[i], bytes + i * stride, sizeof(float));
  return scales;
}

}  // namespace

KeyValue PagedAttentionLaunch::cache(const ::atb::Tensor& tensor, int64_t head_dim) const {
  return nz_cache ? nz_paged_cache(device_data(tensor), tensor.desc.dtype, kv_heads, head_dim, block_size)
                  : nd_paged_cache(device_data(tensor), tensor.desc.dtype, kv_heads, head_dim, block_size);
}

// A block beyond the cache, or a sequence longer than its row of the table, makes the core read out of range.
void PagedAttentionLaunch::check_reach(int64_t sequence, int64_t context_length, const int32_t* row) const {
  if (context_length > table_width * block_size) {
    fail(kAicoreException, "PagedAttention: sequence %lld has %lld tokens, but block_table holds %lld blocks of %lld.",
         (long long)sequence, (long long)context_length, (long long)table_width, (long long)block_size);
  }
  for (int64_t block = 0; block * block_size < context_length; ++block) {
    if (row[block] < 0 || row[block] >= block_count) {
      fail(kAicoreException, "PagedAttention: block_table[%lld][%lld] is %d, but the cache has %lld blocks.",
           (long long)sequence, (long long)block, row[block], (long long)block_count);
    }
  }
}

Mask PagedAttentionLaunch::device_mask() const {
  Mask result;
  if (parameters.maskType == Parameters::UNDEFINED) return result;
  const auto& dims = mask.desc.shape.dims;
  const uint64_t rank = mask.desc.shape.dimNum;
  result.kind = Mask::Kind::kAdditive;
  result.data = device_data(mask);
  result.dtype = mask.desc.dtype;
  if (parameters.maskType == Parameters::MASK_TYPE_NORM_COMPRESS) {
    result.row_stride = kCompressedMaskSize;  // the kernel reads rows of 2048, whatever format the tensor claims
  } else if (mask.desc.format == ACL_FORMAT_FRACTAL_NZ) {
    result.row_stride = 16;
    result.chunk_stride = dims[2] * 16;
    if (parameters.maskType == Parameters::MASK_TYPE_ALIBI && dims[0] > 1) result.head_stride = dims[1] * dims[2] * 16;
  } else {
    result.row_stride = dims[rank - 1];
    if (parameters.maskType == Parameters::MASK_TYPE_ALIBI && dims[rank - 3] > 1) {
      result.head_stride = dims[rank - 2] * dims[rank - 1];
    }
  }
  return result;
}

Sequence PagedAttentionLaunch::sequence_at(int64_t row, int64_t batch, int64_t query_length,
                                           int64_t context_length) const {
  const auto* table = static_cast<const int32_t*>(device_data(block_table)) + batch * table_width;
  check_reach(batch, context_length, table);
  Sequence sequence;
  sequence.query_length = query_length;
  sequence.kv_length = context_length;
  sequence.query_offset = row * heads * dim;
  sequence.output_offset = row * heads * value_dim;
  sequence.block_table = table;
  const auto& dims = mask.desc.shape.dims;
  if (parameters.maskType == Parameters::MASK_TYPE_SPEC) {
    // One mask row a query token, in the order of the tokens.
    sequence.mask_offset = row * (mask.desc.format == ACL_FORMAT_FRACTAL_NZ ? 16 : dims[mask.desc.shape.dimNum - 1]);
  } else if (parameters.maskType == Parameters::MASK_TYPE_ALIBI && mask.desc.format == ACL_FORMAT_FRACTAL_NZ) {
    if (dims[0] > heads) sequence.mask_offset = batch * heads * dims[1] * dims[2] * 16;
  } else if (parameters.maskType == Parameters::MASK_TYPE_ALIBI && mask.desc.shape.dimNum == 4) {
    sequence.mask_offset = batch * dims[1] * dims[2] * dims[3];
  }
  return sequence;
}

void PagedAttentionLaunch::run() const {
  const std::vector<int32_t> lengths = context_lengths->read();
  const bool spec = parameters.calcType == Parameters::CALC_TYPE_SPEC;
  const bool length_zero_has_no_row = !on_atlas_inference();
  Attention task;
  task.heads = heads;
  task.kv_heads = kv_heads;
  task.scale = parameters.qkScale;
  task.query = device_data(query);
  task.query_dtype = dtype;
  task.query_token_stride = heads * dim;
  task.query_head_stride = dim;
  task.key = cache(key_cache, dim);
  task.value = parameters.mlaVHeadSize > 0 ? task.key : cache(value_cache, value_dim);
  task.value.dim = value_dim;
  std::vector<float> key_scales, value_scales;
  if (parameters.quantType == Parameters::TYPE_DEQUANT_FUSION) {
    key_scales = read_scales(key_scale);
    value_scales = read_scales(value_scale);
    task.key.channel_scale = key_scales.data();
    task.value.channel_scale = value_scales.data();
  }
  task.block_size = block_size;
  task.mask = device_mask();
  task.output = device_data(output);
  task.output_dtype = dtype;
  task.output_token_stride = heads * value_dim;
  task.output_head_stride = value_dim;
  int64_t row = 0;
  for (size_t batch = 0; batch < lengths.size(); ++batch) {
    if (lengths[batch] <= 0 && length_zero_has_no_row) continue;
    const int64_t query_length = spec ? query_lengths[batch] : 1;
    if (lengths[batch] <= 0 && enforces(Rule::kEmptyContext)) {
      row += query_length;  // its row of the output keeps what the memory held
      continue;
    }
    if (row + query_length > tokens) {
      fail(kAicoreException, "PagedAttention: the sequences have more query tokens than the query's %lld.",
           (long long)tokens);
    }
    const Sequence sequence = sequence_at(row, batch, query_length, std::max(lengths[batch], 0));
    if (parameters.maskType == Parameters::MASK_TYPE_NORM_COMPRESS) {
      const Stride stride{heads * dim, heads * value_dim};
      append_causal_tiles(sequence, stride, block_size, kCompressedMaskSize, &task.sequences);
    } else {
      task.sequences.push_back(sequence);
    }
    row += query_length;
  }
  attention(task);
}

Work PagedAttentionLaunch::work() const {
  const std::vector<int32_t> lengths = context_lengths->read();
  Work work;
  double keys = 0;
  for (size_t i = 0; i < lengths.size(); ++i) {
    const double length = std::clamp<int64_t>(lengths[i], 0, table_width * block_size);
    const double queries = query_lengths.empty() ? 1 : query_lengths[i];
    work.cube_flops += 2.0 * queries * length * heads * (dim + value_dim);
    keys += length;
  }
  const double element_bytes = element_bits(key_cache.desc.dtype) / 8.0;
  const double cached_dim = parameters.mlaVHeadSize > 0 ? dim : dim + value_dim;
  work.read_bytes = query.dataSize + keys * kv_heads * cached_dim * element_bytes;
  work.written_bytes = output.dataSize;
  return work;
}

}  // namespace emulator
