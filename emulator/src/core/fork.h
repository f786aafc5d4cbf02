// A child of fork() has the memory of its parent and none of its stream threads: whatever it queued would wait for
// ever. As on hardware, a process that was forked from one that used devices cannot use them.
#pragma once

#include <atomic>

namespace emulator {

namespace detail {
extern std::atomic<bool> forked_from_user_of_devices;
}

void note_device_use();  // from now on, children are of that kind

inline bool is_forked_from_user_of_devices() {
  return detail::forked_from_user_of_devices.load(std::memory_order_relaxed);
}

[[noreturn]] void fail_after_fork();

// Throws Failure(107002) in such a child.
inline void refuse_after_fork() {
  if (is_forked_from_user_of_devices()) [[unlikely]] fail_after_fork();
}

}  // namespace emulator
