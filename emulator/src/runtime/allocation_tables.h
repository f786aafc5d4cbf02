// What allocations.cpp, virtual_memory.cpp and shared_memory.cpp know together: one set of tables, under one lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "runtime/address_space.h"
#include "runtime/allocations.h"
#include "runtime/device.h"

namespace emulator {

struct PhysicalMemory {
  Device* device = nullptr;
  int file = -1;
  size_t offset = 0;
  size_t size_bytes = 0;
  int mappings = 0;
};

inline constexpr size_t kPageBytes = 4096;
inline constexpr size_t kHugePageBytes = size_t{2} << 20;

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

Tables& tables();

inline uintptr_t number(const void* address) { return reinterpret_cast<uintptr_t>(address); }

// A size in whole units. Before any arithmetic with it: nothing that is larger than the chip, or than the addresses of
// all devices, can be rounded, added to or charged. Both throw Failure.
size_t size_on(const Device& device, size_t size_bytes, size_t unit);
size_t size_of_range(size_t size_bytes, size_t unit);

// Addresses that are given back unless somebody keeps them.
class Reservation {
 public:
  Reservation(size_t size_bytes, size_t alignment)
      : address_(reserve_addresses(size_bytes, alignment)), size_bytes_(size_bytes) {}
  ~Reservation() {
    if (address_ != nullptr) release_addresses(address_, size_bytes_);
  }
  Reservation(const Reservation&) = delete;
  Reservation& operator=(const Reservation&) = delete;
  void* get() const { return address_; }
  void* keep() { return std::exchange(address_, nullptr); }

 private:
  void* address_;
  size_t size_bytes_;
};

// One unlinked file for all shareable device memory of the process: descriptors are scarce, offsets are not.
class PhysicalFile {
 public:
  int descriptor();
  size_t grow(size_t size_bytes);  // the offset of the new part
  void discard(size_t offset, size_t size_bytes);

 private:
  int file_ = -1;
  size_t size_bytes_ = 0;
};

PhysicalFile& physical_file();

// With the tables locked.
void drop_physical(PhysicalMemory* memory);
PhysicalMemory& checked(PhysicalMemory* memory);  // throws Failure(107017) for one that does not exist

template <typename Map>
typename Map::iterator entry_containing(Map& map, uintptr_t address) {
  auto it = map.upper_bound(address);
  return it == map.begin() ? map.end() : std::prev(it);
}

// Whether any byte of the range belongs to an entry of the map.
bool overlaps(const std::map<uintptr_t, Allocation>& map, uintptr_t address, size_t size_bytes);

}  // namespace emulator
