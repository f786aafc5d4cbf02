// Physical memory, reserved addresses, and mappings of one into the other.
#include <algorithm>
#include <memory>

#include "core/errors.h"
#include "core/stats.h"
#include "runtime/allocation_tables.h"
#include "runtime/memory_value.h"

namespace emulator {

PhysicalMemory* allocate_physical(Device& device, size_t size_bytes) {
  const size_t rounded = size_on(device, size_bytes, kPageBytes);
  device.charge(static_cast<int64_t>(rounded));
  auto& table = tables();
  std::lock_guard lock(table.mutex);
  try {
    auto memory = std::make_unique<PhysicalMemory>(PhysicalMemory{
        .device = &device, .file = physical_file().descriptor(), .offset = physical_file().grow(rounded),
        .size_bytes = rounded});
    table.physical.insert(memory.get());
    stats().allocations.fetch_add(1, std::memory_order_relaxed);
    return memory.release();
  } catch (...) {
    device.discharge(static_cast<int64_t>(rounded));
    throw;
  }
}

void free_physical(PhysicalMemory* memory) {
  auto& table = tables();
  std::lock_guard lock(table.mutex);
  if (checked(memory).mappings > 0) {
    fail(kInvalidParam, "the memory is still mapped; call aclrtUnmapMem first.");
  }
  drop_physical(memory);
  stats().frees.fetch_add(1, std::memory_order_relaxed);
}

void* reserve_range(size_t size_bytes, size_t alignment) {
  const size_t rounded = size_of_range(size_bytes, kHugePageBytes);
  if ((alignment & (alignment - 1)) != 0 || alignment > kArenaBytes) {
    fail(ACL_ERROR_INVALID_PARAM, "the alignment must be 0 or a power of two, not %zu.", alignment);
  }
  void* address = reserve_addresses(rounded, std::max(alignment, kHugePageBytes));
  auto& table = tables();
  std::lock_guard lock(table.mutex);
  table.ranges[number(address)] = rounded;
  return address;
}

void release_range(void* address) {
  auto& table = tables();
  std::lock_guard lock(table.mutex);
  const auto found = table.ranges.find(number(address));
  if (found == table.ranges.end()) fail(kInvalidParam, "%p was not reserved.", address);
  if (overlaps(table.device, found->first, found->second)) {
    fail(kInvalidParam, "memory is still mapped into the range at %p; call aclrtUnmapMem first.", address);
  }
  release_addresses(address, found->second);
  table.ranges.erase(found);
}

void map_physical(void* address, size_t size_bytes, size_t offset, PhysicalMemory* memory) {
  auto& table = tables();
  std::lock_guard lock(table.mutex);
  PhysicalMemory& physical = checked(memory);
  const uintptr_t start = number(address);
  const auto range = entry_containing(table.ranges, start);
  if (size_bytes == 0 || range == table.ranges.end() || start - range->first >= range->second ||
      size_bytes > range->second - (start - range->first)) {
    fail(kInvalidParam, "%p (%zu bytes) lies outside the reserved addresses.", address, size_bytes);
  }
  if (offset > physical.size_bytes || size_bytes > physical.size_bytes - offset) {
    fail(kInvalidParam, "%zu bytes at offset %zu exceed the physical memory of %zu bytes.", size_bytes,
         offset, physical.size_bytes);
  }
  if (start % kPageBytes != 0 || size_bytes % kPageBytes != 0 || offset % kPageBytes != 0) {
    fail(kInvalidParam, "%p (%zu bytes at offset %zu) does not consist of whole pages.", address, size_bytes, offset);
  }
  if (overlaps(table.device, start, size_bytes)) {
    fail(kInvalidParam, "something is already mapped in the %zu bytes at %p.", size_bytes, address);
  }
  back_with_file(address, size_bytes, physical.file, physical.offset + offset);
  table.device[start] = {
      .size_bytes = size_bytes, .device = physical.device, .origin = Origin::kMapping, .physical = memory};
  ++physical.mappings;
}

void unmap_physical(void* address) {
  auto& table = tables();
  std::lock_guard lock(table.mutex);
  const auto found = table.device.find(number(address));
  if (found == table.device.end() || found->second.origin != Origin::kMapping) {
    fail(kInvalidParam, "nothing is mapped at %p.", address);
  }
  forget_written_values(address, found->second.size_bytes);
  remove_backing(address, found->second.size_bytes);
  --found->second.physical->mappings;
  table.device.erase(found);
}

}  // namespace emulator
