#include "core/fork.h"

#include <pthread.h>

#include "core/errors.h"

namespace emulator {

std::atomic<bool> detail::forked_from_user_of_devices{false};

void note_device_use() {
  static std::atomic<bool> is_noted{false};
  if (is_noted.load(std::memory_order_relaxed) || is_noted.exchange(true)) return;
  pthread_atfork(nullptr, nullptr, [] { detail::forked_from_user_of_devices.store(true); });
}

void fail_after_fork() {
  fail(kContextNull,
       "This process was forked from one that had used a device, and devices do not survive a fork. Start it with the "
       "\"spawn\" method, or fork before the first use of a device.");
}

}  // namespace emulator
