#include "runtime/allocation_tables.h"

#include <acl/error_codes/rt_error_codes.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/errors.h"
#include "core/rounding.h"

namespace emulator {

Tables& tables() {
  static auto& instance = *new Tables;
  return instance;
}

size_t size_on(const Device& device, size_t size_bytes, size_t unit) {
  if (size_bytes == 0) fail(ACL_ERROR_INVALID_PARAM, "the size must be positive.");
  if (size_bytes > static_cast<size_t>(device.memory_bytes())) {
    fail(kMemoryAllocation, "Device %d is out of memory: %zu bytes were asked for, it has %ld.", device.id(),
         size_bytes, static_cast<long>(device.memory_bytes()));
  }
  return round_up_to(size_bytes, unit);
}

size_t size_of_range(size_t size_bytes, size_t unit) {
  if (size_bytes == 0) fail(ACL_ERROR_INVALID_PARAM, "the size must be positive.");
  if (size_bytes > kArenaBytes) {
    fail(kMemoryAllocation, "%zu bytes are more than the %zu TiB of addresses that devices have.", size_bytes,
         kArenaBytes >> 40);
  }
  return round_up_to(size_bytes, unit);
}

int PhysicalFile::descriptor() {
  if (file_ < 0) {
    file_ = memfd_create("ascend-emulator-device-memory", MFD_CLOEXEC);
    if (file_ < 0) fail(kMemoryAllocation, "memfd_create failed: %s.", strerror(errno));
  }
  return file_;
}

size_t PhysicalFile::grow(size_t size_bytes) {
  const size_t offset = size_bytes_;
  if (ftruncate(descriptor(), static_cast<off_t>(size_bytes_ + size_bytes)) != 0) {
    fail(kMemoryAllocation, "The host cannot grow device memory: %s.", strerror(errno));
  }
  size_bytes_ += size_bytes;
  return offset;
}

void PhysicalFile::discard(size_t offset, size_t size_bytes) {
  fallocate(descriptor(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
            static_cast<off_t>(size_bytes));
}

PhysicalFile& physical_file() {
  static auto& file = *new PhysicalFile;
  return file;
}

void drop_physical(PhysicalMemory* memory) {
  physical_file().discard(memory->offset, memory->size_bytes);
  memory->device->discharge(static_cast<int64_t>(memory->size_bytes));
  tables().physical.erase(memory);
  delete memory;
}

PhysicalMemory& checked(PhysicalMemory* memory) {
  if (tables().physical.count(memory) == 0) {
    fail(ACL_ERROR_RT_INVALID_HANDLE, "The physical memory handle %p does not exist.", static_cast<void*>(memory));
  }
  return *memory;
}

bool overlaps(const std::map<uintptr_t, Allocation>& map, uintptr_t address, size_t size_bytes) {
  const auto next = map.lower_bound(address);
  if (next != map.end() && next->first - address < size_bytes) return true;
  return next != map.begin() && address - std::prev(next)->first < std::prev(next)->second.size_bytes;
}

}  // namespace emulator
