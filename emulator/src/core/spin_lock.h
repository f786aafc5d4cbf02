// A lock for critical sections of a few instructions: submitting a launch must not enter the kernel.
#pragma once

#include <sched.h>

#include <atomic>
#include <chrono>

namespace emulator {

inline void relax_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Polls a condition for a moment. True as soon as it holds. The time is long enough to span the host's between two
// small operators, and short enough not to matter when idle.
template <typename Condition>
bool spin_until(Condition&& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(20);
  do {
    for (int i = 0; i < 32; ++i) {
      if (condition()) return true;
      relax_cpu();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

class SpinLock {
 public:
  void lock() {
    for (int tries = 0; held_.exchange(true, std::memory_order_acquire); ++tries) {
      // The holder may have lost its core (there are fewer cores than threads on a laptop).
      if (tries < 64) {
        relax_cpu();
      } else {
        sched_yield();
      }
    }
  }
  void unlock() { held_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> held_{false};
};

}  // namespace emulator
