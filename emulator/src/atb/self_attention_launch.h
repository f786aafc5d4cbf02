// What SelfAttention does when its task runs; self_attention.cpp has checked everything that can be checked before.
#pragma once

#include <vector>

#include "atb/operation.h"
#include "math/attention.h"

namespace emulator {

inline constexpr int64_t kShortCompressedMask = 128;  // MASK_TYPE_NORM_COMPRESS on Atlas A2 and A3

// Everything that a launch needs, owned; device addresses are translated when it runs.
struct SelfAttentionLaunch {
  ::atb::infer::SelfAttentionParam parameters;
  int64_t heads = 0, kv_heads = 0, dim = 0, value_dim = 0, block_size = 0, block_count = 0, table_width = 0;
  aclDataType dtype = ACL_FLOAT16;
  ::atb::Tensor query, key, value, mask, block_table, output;
  std::vector<int32_t> query_lengths, kv_lengths;

  void run() const;
  Work work() const;

 private:
  KeyValue source(const ::atb::Tensor& tensor, int64_t head_dim) const;
  Mask device_mask() const;
  void append(size_t batch, int64_t query_row, int64_t kv_row, std::vector<Sequence>* sequences) const;
};

}  // namespace emulator
