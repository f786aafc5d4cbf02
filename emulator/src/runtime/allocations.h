// Who owns which addresses: device allocations, reserved ranges with physical memory mapped into them, pinned memory.
#pragma once

#include <acl/acl.h>

#include <cstddef>
#include <cstdint>

namespace emulator {

class Device;

// Device memory by aclrtMalloc's rules; throws Failure(207001) when the chip is full.
void* allocate_device_memory(Device& device, size_t size_bytes);
void free_device_memory(void* address);
void free_all_memory_of(Device& device);

void* allocate_pinned_memory(size_t size_bytes);
void free_pinned_memory(void* address);
void register_host_memory(void* address, size_t size_bytes);
void unregister_host_memory(void* address);

// Physical memory and the ranges it is mapped into (expandable segments).
struct PhysicalMemory;
PhysicalMemory* allocate_physical(Device& device, size_t size_bytes);
void free_physical(PhysicalMemory* memory);
void map_physical(void* address, size_t size_bytes, size_t offset, PhysicalMemory* memory);
void unmap_physical(void* address);
void* reserve_range(size_t size_bytes, size_t alignment);
void release_range(void* address);

// Memory that another process may map: its pages move into a file that both can open.
struct SharedPages {
  int process = 0;
  int file = 0;
  size_t offset = 0;
  size_t size_bytes = 0;
  int device = 0;
};
SharedPages share(void* address);
void* map_shared(Device& device, const SharedPages& pages);
void unmap_shared(void* address);

enum class MemoryKind { kUnregistered, kPinnedHost, kDevice };
struct MemoryOwner {
  MemoryKind kind = MemoryKind::kUnregistered;
  int device = 0;
};
MemoryOwner owner_of(const void* address);

// Whether every byte of the range is allocated device memory.
bool is_device_range(const void* address, size_t size_bytes);
// Throws Failure(107000) unless every byte of the range is allocated device memory.
void check_device_range(const void* address, size_t size_bytes, const char* argument);

}  // namespace emulator
