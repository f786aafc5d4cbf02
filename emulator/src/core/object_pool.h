// Objects of one type at addresses of their own. Whether a pointer leads to one is arithmetic and one flag: a program
// may pass what it destroyed, or anything else, as a descriptor, and a launch has no time to look it up in a table.
#pragma once

#include <sys/mman.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "core/spin_lock.h"

namespace emulator {

template <typename Object>
class ObjectPool {
 public:
  template <typename... Arguments>
  Object* make(Arguments&&... arguments) {
    Slot* slot = take();
    try {
      auto* object = new (slot->storage) Object{std::forward<Arguments>(arguments)...};
      slot->is_live.store(true, std::memory_order_release);
      return object;
    } catch (...) {
      give_back(slot);
      throw;
    }
  }

  bool holds(const void* pointer) const {
    const Slot* slot = slot_of(pointer);
    return slot != nullptr && slot->is_live.load(std::memory_order_acquire);
  }

  // False if the pointer leads to no object of the pool, or to one that was destroyed.
  bool destroy(const Object* object) {
    auto* slot = const_cast<Slot*>(slot_of(object));
    if (slot == nullptr || !slot->is_live.exchange(false)) return false;
    object->~Object();
    give_back(slot);
    return true;
  }

 private:
  struct Slot {
    alignas(Object) std::byte storage[sizeof(Object)];
    std::atomic<bool> is_live;
  };
  static constexpr size_t kSlots = size_t{1} << 22;  // of addresses: pages exist once they are touched

  static Slot* reserve() {
    constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* memory = mmap(nullptr, kSlots * sizeof(Slot), PROT_READ | PROT_WRITE, kFlags, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    return static_cast<Slot*>(memory);
  }

  const Slot* slot_of(const void* pointer) const {
    const auto distance = reinterpret_cast<uintptr_t>(pointer) - reinterpret_cast<uintptr_t>(slots_);
    if (distance >= kSlots * sizeof(Slot) || distance % sizeof(Slot) != 0) return nullptr;
    return slots_ + distance / sizeof(Slot);
  }

  Slot* take() {
    std::lock_guard lock(lock_);
    if (!free_.empty()) {
      Slot* slot = free_.back();
      free_.pop_back();
      return slot;
    }
    if (used_ == kSlots) throw std::bad_alloc();
    return slots_ + used_++;
  }

  void give_back(Slot* slot) {
    std::lock_guard lock(lock_);
    free_.push_back(slot);
  }

  Slot* const slots_ = reserve();
  SpinLock lock_;
  std::vector<Slot*> free_;
  size_t used_ = 0;
};

}  // namespace emulator
