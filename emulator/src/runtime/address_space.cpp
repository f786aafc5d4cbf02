#include "runtime/address_space.h"

#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>

#include "core/clock.h"
#include "core/config.h"
#include "core/errors.h"
#include "core/memory.h"
#include "core/tensor.h"

namespace emulator {
namespace {

constexpr size_t kHugePageBytes = size_t{2} << 20;
constexpr size_t kReleaseThresholdBytes = size_t{16} << 20;  // below this, memset is cheaper than new page faults

struct Arena {
  uintptr_t base = 0;
  intptr_t alias_distance = 0;
  std::mutex mutex;
  std::map<uintptr_t, size_t> free_ranges;  // by start; neighbours are merged
};

uintptr_t reserve_arena() {
  void* address = mmap(nullptr, kArenaBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) {
    fail(ACL_ERROR_BAD_ALLOC,
         "Cannot reserve %zu TiB of addresses for emulated device memory: %s. Lift the limit on virtual memory "
         "(ulimit -v unlimited).",
         kArenaBytes >> 40, strerror(errno));
  }
  return reinterpret_cast<uintptr_t>(address);
}

Arena* make_arena() {
  auto* arena = new Arena;
  arena->base = reserve_arena();
  if (config().protect_memory) arena->alias_distance = static_cast<intptr_t>(reserve_arena() - arena->base);
  arena->free_ranges[arena->base] = kArenaBytes;
  return arena;
}

Arena& arena() {
  static Arena& instance = *make_arena();
  return instance;
}

void* alias_of(void* address) {
  return static_cast<char*>(address) + arena().alias_distance;
}

void map_fixed(void* address, size_t size_bytes, int protection, int flags, int file, size_t offset) {
  void* result = mmap(address, size_bytes, protection, flags | MAP_FIXED, file, static_cast<off_t>(offset));
  if (result == MAP_FAILED) {
    fail(kMemoryAllocation, "The host cannot back %zu bytes of emulated device memory: %s.", size_bytes,
         strerror(errno));
  }
}

std::atomic<uint64_t> g_generation{0};

}  // namespace

bool is_device_address(const void* address) {
  return reinterpret_cast<uintptr_t>(address) - arena().base < kArenaBytes;
}

void* host_address(const void* device_address) {
  const auto& range = arena();
  const auto address = reinterpret_cast<uintptr_t>(device_address);
  if (address - range.base < kArenaBytes) return reinterpret_cast<void*>(address + range.alias_distance);
  if (range.alias_distance != 0 && address != 0) {
    fail(kAicoreException, "The device was given the host address %p: it cannot read or write host memory.",
         device_address);
  }
  return const_cast<void*>(device_address);
}

void* reserve_addresses(size_t size_bytes, size_t alignment) {
  auto& range = arena();
  std::lock_guard lock(range.mutex);
  for (auto it = range.free_ranges.begin(); it != range.free_ranges.end(); ++it) {
    const uintptr_t start = it->first;
    const size_t length = it->second;
    const uintptr_t aligned = (start + alignment - 1) / alignment * alignment;
    if (aligned - start + size_bytes > length) continue;
    range.free_ranges.erase(it);
    if (aligned != start) range.free_ranges[start] = aligned - start;
    const uintptr_t end = aligned + size_bytes;
    if (end != start + length) range.free_ranges[end] = start + length - end;
    return reinterpret_cast<void*>(aligned);
  }
  fail(kMemoryAllocation, "No %zu contiguous addresses are left for emulated device memory.", size_bytes);
}

void release_addresses(void* address, size_t size_bytes) {
  auto& range = arena();
  std::lock_guard lock(range.mutex);
  auto next = range.free_ranges.emplace(reinterpret_cast<uintptr_t>(address), size_bytes).first;
  if (next != range.free_ranges.begin()) {
    auto previous = std::prev(next);
    if (previous->first + previous->second == next->first) {
      previous->second += next->second;
      range.free_ranges.erase(next);
      next = previous;
    }
  }
  auto following = std::next(next);
  if (following != range.free_ranges.end() && next->first + next->second == following->first) {
    next->second += following->second;
    range.free_ranges.erase(following);
  }
}

void back_with_zero_pages(void* address, size_t size_bytes) {
  void* alias = alias_of(address);
  map_fixed(alias, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (size_bytes >= kHugePageBytes && Clock::computes()) madvise(alias, size_bytes, MADV_HUGEPAGE);  // 500 times fewer page faults
}

void back_with_file(void* address, size_t size_bytes, int file, size_t offset) {
  map_fixed(alias_of(address), size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, offset);
}

uint64_t backing_generation() { return g_generation.load(std::memory_order_acquire); }

void remove_backing(void* address, size_t size_bytes) {
  g_generation.fetch_add(1, std::memory_order_acq_rel);
  map_fixed(alias_of(address), size_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

void fill_zero(void* device_address, size_t size_bytes) {
  auto* begin = static_cast<char*>(host_address(device_address));
  if (size_bytes >= kReleaseThresholdBytes) {
    const auto start = (reinterpret_cast<uintptr_t>(begin) + kHugePageBytes - 1) & ~(kHugePageBytes - 1);
    const auto end = reinterpret_cast<uintptr_t>(begin + size_bytes) & ~(kHugePageBytes - 1);
    auto* pages = reinterpret_cast<char*>(start);
    // MADV_REMOVE punches a hole into shared pages and refuses private ones, which MADV_DONTNEED then drops.
    if (madvise(pages, end - start, MADV_REMOVE) == 0 || madvise(pages, end - start, MADV_DONTNEED) == 0) {
      std::memset(begin, 0, pages - begin);
      std::memset(pages + (end - start), 0, begin + size_bytes - (pages + (end - start)));
      return;
    }
  }
  std::memset(begin, 0, size_bytes);
}

}  // namespace emulator
