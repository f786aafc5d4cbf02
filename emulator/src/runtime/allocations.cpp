#include "runtime/allocations.h"

#include <acl/error_codes/rt_error_codes.h>
#include <sys/mman.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "core/errors.h"
#include "core/memory.h"
#include "core/stats.h"
#include "runtime/allocation_tables.h"
#include "runtime/memory_value.h"

namespace emulator {
namespace {

constexpr size_t kHugePagesFromBytes = size_t{1} << 20;  // aclrtMalloc, ACL_MEM_MALLOC_HUGE_FIRST: above 1 MiB

void release_allocation(uintptr_t start, Allocation& allocation) {
  void* address = reinterpret_cast<void*>(start);
  forget_written_values(address, allocation.size_bytes);
  remove_backing(address, allocation.size_bytes);
  release_addresses(address, allocation.size_bytes + kPageBytes);
  if (allocation.physical != nullptr) {
    drop_physical(allocation.physical);
  } else {
    allocation.device->discharge(static_cast<int64_t>(allocation.size_bytes));
  }
}

}  // namespace

void* allocate_device_memory(Device& device, size_t size_bytes) {
  const size_t page = size_bytes > kHugePagesFromBytes ? kHugePageBytes : kPageBytes;
  const size_t rounded = size_on(device, size_bytes, page);
  device.charge(static_cast<int64_t>(rounded));
  try {
    // The page behind stays unmapped: a kernel that runs over its tensor's end must not find its neighbour.
    Reservation addresses(rounded + kPageBytes, page);
    back_with_zero_pages(addresses.get(), rounded);
    auto& table = tables();
    std::lock_guard lock(table.mutex);
    table.device[number(addresses.get())] = {.size_bytes = rounded, .device = &device, .origin = Origin::kMalloc};
    stats().allocations.fetch_add(1, std::memory_order_relaxed);
    return addresses.keep();
  } catch (...) {
    device.discharge(static_cast<int64_t>(rounded));
    throw;
  }
}

void free_device_memory(void* address) {
  auto& table = tables();
  std::lock_guard lock(table.mutex);
  const auto found = table.device.find(number(address));
  if (found == table.device.end() || found->second.origin != Origin::kMalloc) {
    fail(kInvalidParam, "%p is not the start of a device allocation.", address);
  }
  release_allocation(found->first, found->second);
  table.device.erase(found);
  stats().frees.fetch_add(1, std::memory_order_relaxed);
}

void free_all_memory_of(Device& device) {
  auto& table = tables();
  std::lock_guard lock(table.mutex);
  for (auto it = table.device.begin(); it != table.device.end();) {
    if (it->second.device == &device && it->second.origin == Origin::kMalloc) {
      release_allocation(it->first, it->second);
      it = table.device.erase(it);
    } else {
      ++it;
    }
  }
}

void* allocate_pinned_memory(size_t size_bytes) {
  const size_t rounded = size_of_range(size_bytes, kPageBytes);
  void* address = mmap(nullptr, rounded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) fail(kMemoryAllocation, "%zu bytes: %s.", size_bytes, strerror(errno));
  auto& table = tables();
  std::lock_guard lock(table.mutex);
  table.pinned[number(address)] = rounded;
  return address;
}

void free_pinned_memory(void* address) {
  auto& table = tables();
  std::lock_guard lock(table.mutex);
  const auto found = table.pinned.find(number(address));
  if (found == table.pinned.end()) fail(kInvalidParam, "%p was not allocated here.", address);
  munmap(address, found->second);
  table.pinned.erase(found);
}

void register_host_memory(void* address, size_t size_bytes) {
  if (size_bytes == 0 || size_bytes > kArenaBytes) fail(ACL_ERROR_INVALID_PARAM, "%zu is no size.", size_bytes);
  auto& table = tables();
  std::lock_guard lock(table.mutex);
  if (!table.registered.emplace(number(address), size_bytes).second) {
    fail(ACL_ERROR_HOST_MEMORY_ALREADY_REGISTERED, "The host memory at %p is already registered.", address);
  }
}

void unregister_host_memory(void* address) {
  auto& table = tables();
  std::lock_guard lock(table.mutex);
  if (table.registered.erase(number(address)) == 0) {
    fail(ACL_ERROR_HOST_MEMORY_NOT_REGISTERED, "The host memory at %p was not registered.", address);
  }
}

MemoryOwner owner_of(const void* address) {
  auto& table = tables();
  std::lock_guard lock(table.mutex);
  if (is_device_address(address)) {
    const auto found = entry_containing(table.device, number(address));
    if (found != table.device.end() && number(address) < found->first + found->second.size_bytes) {
      return {.kind = MemoryKind::kDevice, .device = found->second.device->id()};
    }
    return {};
  }
  for (auto* map : {&table.pinned, &table.registered}) {
    const auto found = entry_containing(*map, number(address));
    if (found != map->end() && number(address) < found->first + found->second) return {.kind = MemoryKind::kPinnedHost};
  }
  return {};
}

namespace {

// Ranges that this thread found allocated lately: every tensor of every launch is asked about, most of them again and again.
struct KnownRange {
  uintptr_t begin = 0, end = 0;
  uint64_t generation = 0;
};

KnownRange& known_range_near(uintptr_t address) {
  constexpr size_t kKnown = 64;
  thread_local std::array<KnownRange, kKnown> known;
  return known[address / kHugePageBytes % kKnown];
}

}  // namespace

bool is_device_range(const void* address, size_t size_bytes) {
  KnownRange& known = known_range_near(number(address));
  const uint64_t generation = backing_generation();  // before the look-up: what is freed meanwhile makes it old
  if (known.generation == generation && number(address) >= known.begin && number(address) <= known.end &&
      size_bytes <= known.end - number(address) && known.end != 0) {
    return true;
  }
  auto& table = tables();
  std::lock_guard lock(table.mutex);
  uintptr_t position = number(address);
  auto it = entry_containing(table.device, position);
  const uintptr_t begin = it == table.device.end() ? position : it->first;
  // Expandable segments: neighbouring mappings form one range.
  while (it != table.device.end() && it->first <= position && position - it->first < it->second.size_bytes) {
    const size_t left = it->second.size_bytes - (position - it->first);
    if (size_bytes <= left) {
      known = {.begin = begin, .end = position + left, .generation = generation};
      return true;
    }
    size_bytes -= left;
    position += left;
    ++it;
  }
  return false;
}

void check_device_range(const void* address, size_t size_bytes, const char* argument) {
  if (is_device_range(address, size_bytes)) return;
  fail(kInvalidParam, "%s (%p, %zu bytes) is not allocated device memory.", argument, address, size_bytes);
}

}  // namespace emulator
