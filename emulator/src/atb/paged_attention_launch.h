// What PagedAttention does when its task runs; paged_attention.cpp has checked everything that can be checked before.
#pragma once

#include <memory>
#include <vector>

#include "atb/operation.h"
#include "math/attention.h"

namespace emulator {

// Everything that a launch needs, owned; device addresses are translated when it runs.
struct PagedAttentionLaunch {
  ::atb::infer::PagedAttentionParam parameters;
  int64_t heads = 0, kv_heads = 0, dim = 0, value_dim = 0;
  int64_t block_size = 0, block_count = 0, table_width = 0, table_rows = 0, tokens = 0;
  bool nz_cache = false;
  aclDataType dtype = ACL_FLOAT16;
  ::atb::Tensor query, key_cache, value_cache, block_table, mask, key_scale, value_scale, output;
  std::shared_ptr<Lengths> context_lengths;
  std::vector<int32_t> query_lengths;  // CALC_TYPE_SPEC

  void run() const;
  Work work() const;

 private:
  Mask device_mask() const;
  void check_reach(int64_t sequence, int64_t context_length, const int32_t* row) const;
  KeyValue cache(const ::atb::Tensor& tensor, int64_t head_dim) const;
  Sequence sequence_at(int64_t row, int64_t batch, int64_t query_length, int64_t context_length) const;
};

}  // namespace emulator
