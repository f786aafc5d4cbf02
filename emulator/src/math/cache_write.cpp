// Scatter of new keys or values into a paged cache.
#include <algorithm>
#include <cstring>

#include "core/errors.h"
#include "math/attention.h"

namespace emulator {

void write_cache(const CacheWrite& write) {
  const KeyValue& cache = write.cache;
  const int64_t bytes = write.element_bytes;
  const int64_t slot_count = write.block_count * write.block_size;
  for (int64_t t = 0; t < write.tokens; ++t) {
    const int64_t slot = write.slots_dtype == ACL_INT64 ? static_cast<const int64_t*>(write.slots)[t]
                                                        : static_cast<const int32_t*>(write.slots)[t];
    if (slot < 0) continue;
    if (slot >= slot_count) {
      fail(kAicoreException, "the slot of token %lld is %lld, but the cache has %lld slots", static_cast<long long>(t),
           static_cast<long long>(slot), static_cast<long long>(slot_count));
    }
    const int64_t position = slot / write.block_size * cache.block_stride + slot % write.block_size * cache.token_stride;
    for (int64_t h = 0; h < write.heads; ++h) {
      const auto* from = static_cast<const char*>(write.source) + (t * write.source_token_stride + h * write.source_head_stride) * bytes;
      auto* to = static_cast<char*>(const_cast<void*>(cache.data)) + (position + h * cache.head_stride) * bytes;
      for (int64_t d = 0; d < cache.dim; d += 16) {
        std::memcpy(to + d / 16 * cache.chunk_stride * bytes, from + d * bytes, std::min<int64_t>(16, cache.dim - d) * bytes);
      }
    }
  }
}

}  // namespace emulator
