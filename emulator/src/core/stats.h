// What the emulator counts: the reason why a test on it can see a needless synchronization or copy.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

namespace emulator {

enum class Sync { kStream, kDevice, kEvent, kCopy, kCount };  // kCopy: a blocking aclrtMemcpy or aclrtMemset
enum class Direction { kHostToDevice, kDeviceToHost, kDeviceToDevice, kHostToHost, kCount };

struct CopyCounter {
  std::atomic<uint64_t> count{0};
  std::atomic<uint64_t> bytes{0};
};

struct Stats {
  std::atomic<uint64_t> syncs[static_cast<int>(Sync::kCount)]{};
  CopyCounter sync_copies[static_cast<int>(Direction::kCount)];
  CopyCounter async_copies[static_cast<int>(Direction::kCount)];
  std::atomic<uint64_t> event_records{0};
  std::atomic<uint64_t> event_waits{0};
  std::atomic<uint64_t> event_queries{0};
  std::atomic<uint64_t> host_callbacks{0};
  std::atomic<uint64_t> graph_captures{0};
  std::atomic<uint64_t> graph_replays{0};
  std::atomic<uint64_t> graph_updates{0};
  std::atomic<uint64_t> allocations{0};
  std::atomic<uint64_t> frees{0};
};

Stats& stats();
inline void count(std::atomic<uint64_t>& counter) { counter.fetch_add(1, std::memory_order_relaxed); }
inline void count_sync(Sync kind) { count(stats().syncs[static_cast<int>(kind)]); }
void count_copy(Direction direction, bool blocking, uint64_t size_bytes);

std::string stats_json();  // every counter of the process; docs/counters.md lists them
void reset_stats();
void write_stats_at_exit();  // to ASCEND_EMULATOR_STATS, if set

}  // namespace emulator
