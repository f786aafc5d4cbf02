#include "runtime/allocations.h"

#include <acl/error_codes/rt_error_codes.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>

#include "core/errors.h"
#include "core/memory.h"
#include "core/stats.h"
#include "core/tensor.h"
#include "runtime/address_space.h"
#include "runtime/device.h"

namespace emulator {

struct PhysicalMemory {
  Device* device = nullptr;
  int file = -1;
  size_t offset = 0;
  size_t size_bytes = 0;
  int mappings = 0;
  bool owned = true;  // false: another process's, mapped here
};

namespace {

constexpr size_t kPageBytes = 4096;
constexpr size_t kHugePageBytes = size_t{2} << 20;
constexpr size_t kHugePagesFromBytes = size_t{1} << 20;  // aclrtMalloc, ACL_MEM_MALLOC_HUGE_FIRST: above 1 MiB

enum class Origin { kMalloc, kMapping, kShared };

struct Allocation {
  size_t size_bytes;
  Device* device;
  Origin origin;
  PhysicalMemory* physical = nullptr;  // of a mapping, or of a malloc that was shared
};

struct Tables {
  std::mutex mutex;
  std::map<uintptr_t, Allocation> device;           // by start address
  std::map<uintptr_t, size_t> ranges;               // reserved by aclrtReserveMemAddress
  std::map<uintptr_t, size_t> pinned;               // allocated here
  std::map<uintptr_t, size_t> registered;           // allocated by the program, registered here
  std::set<PhysicalMemory*> physical;
};

Tables& tables() {
  static auto& instance = *new Tables;
  return instance;
}

uintptr_t number(const void* address) {
  return reinterpret_cast<uintptr_t>(address);
}

size_t round_up(size_t value, size_t unit) {
  return (value + unit - 1) / unit * unit;
}

// One unlinked file for all shareable device memory of the process: descriptors are scarce, offsets are not.
class PhysicalFile {
 public:
  int descriptor() {
    if (file_ < 0) {
      file_ = memfd_create("ascend-emulator-device-memory", MFD_CLOEXEC);
      if (file_ < 0) fail(kMemoryAllocation, "memfd_create failed: %s.", strerror(errno));
    }
    return file_;
  }
  size_t grow(size_t size_bytes) {
    const size_t offset = size_bytes_;
    if (ftruncate(descriptor(), static_cast<off_t>(size_bytes_ + size_bytes)) != 0) {
      fail(kMemoryAllocation, "The host cannot grow device memory: %s.", strerror(errno));
    }
    size_bytes_ += size_bytes;
    return offset;
  }
  void discard(size_t offset, size_t size_bytes) {
    fallocate(descriptor(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
              static_cast<off_t>(size_bytes));
  }

 private:
  int file_ = -1;
  size_t size_bytes_ = 0;
};

PhysicalFile& physical_file() {
  static auto& file = *new PhysicalFile;
  return file;
}

template <typename Map>
typename Map::iterator entry_containing(Map& map, uintptr_t address) {
  auto it = map.upper_bound(address);
  return it == map.begin() ? map.end() : std::prev(it);
}

void drop_physical(PhysicalMemory* memory) {  // with the tables locked
  if (memory->owned) {
    physical_file().discard(memory->offset, memory->size_bytes);
    memory->device->discharge(static_cast<int64_t>(memory->size_bytes));
  } else {
    close(memory->file);
  }
  tables().physical.erase(memory);
  delete memory;
}

void release_allocation(uintptr_t start, Allocation& allocation) {
  void* address = reinterpret_cast<void*>(start);
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
  if (size_bytes == 0) fail(kInvalidParam, "the size must be positive.");
  const size_t page = size_bytes > kHugePagesFromBytes ? kHugePageBytes : kPageBytes;
  const size_t rounded = round_up(size_bytes, page);
  device.charge(static_cast<int64_t>(rounded));
  try {
    // The page behind stays unmapped: a kernel that runs over its tensor's end must not find its neighbour.
    void* address = reserve_addresses(rounded + kPageBytes, page);
    back_with_zero_pages(address, rounded);
    auto& table = tables();
    std::lock_guard lock(table.mutex);
    table.device[number(address)] = {.size_bytes = rounded, .device = &device, .origin = Origin::kMalloc};
    stats().allocations.fetch_add(1, std::memory_order_relaxed);
    return address;
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
  if (size_bytes == 0) fail(kInvalidParam, "the size must be positive.");
  const size_t rounded = round_up(size_bytes, kPageBytes);
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

PhysicalMemory* allocate_physical(Device& device, size_t size_bytes) {
  const size_t rounded = round_up(size_bytes, kPageBytes);
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

namespace {

PhysicalMemory& checked(PhysicalMemory* memory) {
  if (tables().physical.count(memory) == 0) {
    fail(ACL_ERROR_RT_INVALID_HANDLE, "The physical memory handle %p does not exist.", static_cast<void*>(memory));
  }
  return *memory;
}

// The file of another process, through /proc: no name in the file system that a killed process could leave behind.
int open_file_of(int process, int file) {
  const std::string path = "/proc/" + std::to_string(process) + "/fd/" + std::to_string(file);
  const int opened = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (opened < 0) {
    fail(ACL_ERROR_RT_IPC_ERROR, "Device memory of process %d cannot be opened: %s. Has it ended?", process,
         strerror(errno));
  }
  return opened;
}

}  // namespace

PhysicalMemory* import_physical(Device& device, int owner_process, int owner_file, size_t offset, size_t size_bytes) {
  auto memory = std::make_unique<PhysicalMemory>(PhysicalMemory{.device = &device,
                                                                .file = open_file_of(owner_process, owner_file),
                                                                .offset = offset,
                                                                .size_bytes = size_bytes,
                                                                .owned = false});
  auto& table = tables();
  std::lock_guard lock(table.mutex);
  table.physical.insert(memory.get());
  return memory.release();
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

void reserve_range(void** address, size_t size_bytes, size_t alignment) {
  *address = reserve_addresses(round_up(size_bytes, kHugePageBytes), std::max(alignment, kHugePageBytes));
  auto& table = tables();
  std::lock_guard lock(table.mutex);
  table.ranges[number(*address)] = round_up(size_bytes, kHugePageBytes);
}

void release_range(void* address) {
  auto& table = tables();
  std::lock_guard lock(table.mutex);
  const auto found = table.ranges.find(number(address));
  if (found == table.ranges.end()) fail(kInvalidParam, "%p was not reserved.", address);
  release_addresses(address, found->second);
  table.ranges.erase(found);
}

void map_physical(void* address, size_t size_bytes, size_t offset, PhysicalMemory* memory) {
  auto& table = tables();
  std::lock_guard lock(table.mutex);
  PhysicalMemory& physical = checked(memory);
  const auto range = entry_containing(table.ranges, number(address));
  if (range == table.ranges.end() || number(address) + size_bytes > range->first + range->second) {
    fail(kInvalidParam, "%p (%zu bytes) lies outside the reserved addresses.", address, size_bytes);
  }
  if (offset + size_bytes > physical.size_bytes) {
    fail(kInvalidParam, "%zu bytes at offset %zu exceed the physical memory of %zu bytes.", size_bytes,
         offset, physical.size_bytes);
  }
  const Allocation mapping{
      .size_bytes = size_bytes, .device = physical.device, .origin = Origin::kMapping, .physical = memory};
  if (!table.device.emplace(number(address), mapping).second) {
    fail(kInvalidParam, "something is already mapped at %p.", address);
  }
  back_with_file(address, size_bytes, physical.file, physical.offset + offset);
  ++physical.mappings;
}

void unmap_physical(void* address) {
  auto& table = tables();
  std::lock_guard lock(table.mutex);
  const auto found = table.device.find(number(address));
  if (found == table.device.end() || found->second.origin != Origin::kMapping) {
    fail(kInvalidParam, "nothing is mapped at %p.", address);
  }
  remove_backing(address, found->second.size_bytes);
  --found->second.physical->mappings;
  table.device.erase(found);
}

SharedPages share(PhysicalMemory* memory) {
  auto& table = tables();
  std::lock_guard lock(table.mutex);
  const PhysicalMemory& physical = checked(memory);
  return {.process = getpid(), .file = physical.file, .offset = physical.offset, .size_bytes = physical.size_bytes,
          .device = physical.device->id()};
}

SharedPages share(void* address) {
  auto& table = tables();
  std::unique_lock lock(table.mutex);
  const auto found = entry_containing(table.device, number(address));
  if (found == table.device.end() || number(address) >= found->first + found->second.size_bytes) {
    fail(kInvalidParam, "%p is not device memory.", address);
  }
  Allocation& allocation = found->second;
  if (allocation.physical == nullptr) {
    // Private pages become pages of the shared file. The caller has synchronised: nothing writes meanwhile.
    auto& file = physical_file();
    auto* physical = new PhysicalMemory{.device = allocation.device,
                                        .file = file.descriptor(),
                                        .offset = file.grow(allocation.size_bytes),
                                        .size_bytes = allocation.size_bytes,
                                        .mappings = 1};
    table.physical.insert(physical);
    void* start = reinterpret_cast<void*>(found->first);
    const auto* content = static_cast<const char*>(host_address(start));
    for (size_t done = 0; done < allocation.size_bytes;) {
      const ssize_t written = pwrite(physical->file, content + done, allocation.size_bytes - done,
                                     static_cast<off_t>(physical->offset + done));
      if (written <= 0) fail(ACL_ERROR_RT_IPC_ERROR, "Device memory cannot be shared: %s.", strerror(errno));
      done += static_cast<size_t>(written);
    }
    back_with_file(start, allocation.size_bytes, physical->file, physical->offset);
    allocation.physical = physical;
  }
  const size_t inside = number(address) - found->first;
  return {.process = getpid(),
          .file = allocation.physical->file,
          .offset = allocation.physical->offset + inside,
          .size_bytes = allocation.size_bytes - inside,
          .device = allocation.device->id()};
}

void* map_shared(Device& device, const SharedPages& pages) {
  const int file = open_file_of(pages.process, pages.file);
  const size_t lead = pages.offset % kPageBytes;
  const size_t size_bytes = round_up(pages.size_bytes + lead, kPageBytes);
  void* start = reserve_addresses(size_bytes, kHugePageBytes);
  back_with_file(start, size_bytes, file, pages.offset - lead);
  close(file);  // the mapping keeps the pages
  void* address = static_cast<char*>(start) + lead;
  auto& table = tables();
  std::lock_guard lock(table.mutex);
  table.device[number(start)] = {.size_bytes = size_bytes, .device = &device, .origin = Origin::kShared};
  return address;
}

void unmap_shared(void* address) {
  auto& table = tables();
  std::lock_guard lock(table.mutex);
  const auto found = entry_containing(table.device, number(address));
  if (found == table.device.end() || found->second.origin != Origin::kShared) {
    fail(kInvalidParam, "%p was not imported.", address);
  }
  void* start = reinterpret_cast<void*>(found->first);
  remove_backing(start, found->second.size_bytes);
  release_addresses(start, found->second.size_bytes);
  table.device.erase(found);
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

void check_device_range(const void* address, size_t size_bytes, const char* argument) {
  auto& table = tables();
  std::lock_guard lock(table.mutex);
  uintptr_t position = number(address);
  const uintptr_t end = position + size_bytes;
  auto it = entry_containing(table.device, position);
  while (it != table.device.end() && it->first <= position && position < it->first + it->second.size_bytes) {
    position = it->first + it->second.size_bytes;
    if (position >= end) return;
    ++it;  // expandable segments: neighbouring mappings form one range
  }
  fail(kInvalidParam, "%s (%p, %zu bytes) is not allocated device memory.", argument, address, size_bytes);
}

}  // namespace emulator
