// A lock for critical sections of a few instructions: submitting a launch must not enter the kernel.
#pragma once

#include <sched.h>

#include <atomic>

namespace emulator {

inline void relax_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
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
