// CANN's sparseMode, as FusedInferAttentionScore and FlashAttentionScore read it.
#pragma once

#include "math/attention.h"

namespace emulator::aclnn {

inline constexpr int64_t kCompressedMask = 2048;  // rows and columns of the mask that modes 2 to 4 take

// What a query row may see in modes 0 and 2 to 4 (mode 1 leaves all to the mask): 2 is causal from the first key, 3 from
// the last, 4 a band of `left` and `right` keys from the last, 0 the same from the first.
inline Band sparse_band(int64_t mode, int64_t left, int64_t right, int64_t query_length, int64_t kv_length) {
  Band band;
  band.shift = mode >= 3 ? kv_length - query_length : 0;
  if (mode == 2 || mode == 3) {
    band.right = 0;
    return band;
  }
  band.left = left;
  band.right = right;
  return band;
}

// Pairs of query and key that are computed, for the model of time: with a causal mode about half of them are not.
inline double computed_pairs(bool causal, double queries, double keys) {
  return causal && queries > 1 ? queries * keys - queries * (queries - 1) / 2 : queries * keys;
}

}  // namespace emulator::aclnn
