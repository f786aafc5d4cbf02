#include "core/stats.h"

namespace emulator {

Stats& stats() {
  static auto& instance = *new Stats;
  return instance;
}

void count_copy(Direction direction, bool blocking, uint64_t size_bytes) {
  auto& counter = (blocking ? stats().sync_copies : stats().async_copies)[static_cast<int>(direction)];
  counter.count.fetch_add(1, std::memory_order_relaxed);
  counter.bytes.fetch_add(size_bytes, std::memory_order_relaxed);
}

}  // namespace emulator
