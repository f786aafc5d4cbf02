#include "atb/self_attention_launch.h"

#include "atb/compressed_mask.h"

namespace emulator {

using Parameters = ::atb::infer::SelfAttentionParam;

KeyValue SelfAttentionLaunch::source(const ::atb::Tensor& tensor, int64_t head_dim) const {
  if (block_size > 0) return nd_paged_cache(device_data(tensor), dtype, kv_heads, head_dim, block_size);
  KeyValue result;
  result.data = device_data(tensor);
  result.dtype = dtype;
  result.dim = head_dim;
  result.token_stride = kv_heads * head_dim;
  result.head_stride = head_dim;
  return result;
}

Mask SelfAttentionLaunch::device_mask() const {
  Mask result;
  const auto type = parameters.maskType;
  if (type == Parameters::MASK_TYPE_UNDEFINED || type == Parameters::MASK_TYPE_CAUSAL_MASK) return result;
  const auto& dims = mask.desc.shape.dims;
  const uint64_t rank = mask.desc.shape.dimNum;
  result.kind = Mask::Kind::kAdditive;
  result.data = device_data(mask);
  result.dtype = mask.desc.dtype;
  const bool nz = mask.desc.format == ACL_FORMAT_FRACTAL_NZ;
  result.row_stride = nz ? 16 : dims[rank - 1];
  if (nz) result.chunk_stride = dims[2] * 16;
  if (type == Parameters::MASK_TYPE_ALIBI) {
    result.head_stride = nz ? dims[1] * dims[2] * 16 : dims[rank - 2] * dims[rank - 1];
  } else if (dtype == ACL_BF16) {
    result.factor = -3e38f;  // BF16_MASK_COFF: a bfloat16 mask marks hidden keys with 1
  }
  return result;
}

void SelfAttentionLaunch::append(size_t batch, int64_t query_row, int64_t kv_row,
                                 std::vector<Sequence>* sequences) const {
  Sequence sequence;
  sequence.query_length = query_lengths[batch];
  sequence.kv_length = kv_lengths[batch];
  sequence.query_offset = query_row * heads * dim;
  sequence.output_offset = query_row * heads * value_dim;
  if (block_size > 0) {
    sequence.block_table = static_cast<const int32_t*>(device_data(block_table)) + batch * table_width;
    for (int64_t block = 0; block * block_size < sequence.kv_length; ++block) {
      const int32_t id = sequence.block_table[block];
      if (id < 0 || id >= block_count) {
        fail(kAicoreException, "SelfAttention: block_table[%zu][%lld] is %d, but the cache has %lld blocks.", batch,
             (long long)block, id, (long long)block_count);
      }
    }
  } else {
    sequence.key_offset = kv_row * kv_heads * dim;
    sequence.value_offset = kv_row * kv_heads * value_dim;
  }
  const auto& dims = mask.desc.shape.dims;
  const uint64_t rank = mask.desc.shape.dimNum;
  const bool nz = mask.desc.format == ACL_FORMAT_FRACTAL_NZ;
  switch (parameters.maskType) {
    case Parameters::MASK_TYPE_NORM_COMPRESS: {
      const Stride stride{heads * dim, heads * value_dim};
      append_causal_tiles(sequence, stride, kShortCompressedMask, nz ? 16 : dims[rank - 1], sequences);
      return;
    }
    case Parameters::MASK_TYPE_CAUSAL_MASK:
      sequence.band = {sequence.kv_length - sequence.query_length, INT64_MAX / 4, 0};
      break;
    case Parameters::MASK_TYPE_NORM:
      if (rank == (nz ? 4u : 3u) && dims[0] > 1)
        sequence.mask_offset = batch * (nz ? dims[1] * dims[2] * 16 : dims[1] * dims[2]);
      break;
    case Parameters::MASK_TYPE_ALIBI:
      if (nz && dims[0] > heads) sequence.mask_offset = batch * heads * dims[1] * dims[2] * 16;
      if (!nz && rank == 4) sequence.mask_offset = batch * dims[1] * dims[2] * dims[3];
      break;
    default: break;
  }
  sequences->push_back(sequence);
}

void SelfAttentionLaunch::run() const {
  Attention task;
  task.heads = heads;
  task.kv_heads = kv_heads;
  task.scale = parameters.qkScale * parameters.qScale;
  task.query = device_data(query);
  task.query_dtype = dtype;
  task.query_token_stride = heads * dim;
  task.query_head_stride = dim;
  task.key = source(key, dim);
  task.value = source(value, value_dim);
  task.block_size = block_size;
  task.mask = device_mask();
  task.output = device_data(output);
  task.output_dtype = dtype;
  task.output_token_stride = heads * value_dim;
  task.output_head_stride = value_dim;
  int64_t query_row = 0, kv_row = 0;
  for (size_t batch = 0; batch < query_lengths.size(); ++batch) {
    if (query_lengths[batch] > 0) append(batch, query_row, kv_row, &task.sequences);
    query_row += query_lengths[batch];
    kv_row += kv_lengths[batch];
  }
  attention(task);
}

Work SelfAttentionLaunch::work() const {
  Work work;
  const bool causal = parameters.isTriuMask != 0;  // tiles above the diagonal are skipped
  double keys = 0;
  for (size_t i = 0; i < query_lengths.size(); ++i) {
    const double queries = query_lengths[i], length = kv_lengths[i];
    work.cube_flops += 2.0 * queries * (causal ? length - queries / 2 : length) * heads * (dim + value_dim);
    keys += length;
  }
  work.read_bytes = query.dataSize + keys * kv_heads * (dim + value_dim) * element_bits(dtype) / 8.0;
  work.written_bytes = output.dataSize;
  return work;
}

}  // namespace emulator
