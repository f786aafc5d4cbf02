// How long a task takes on the emulated chip. The one seam for a model of time: every task of every stream and of
// every replayed graph passes through Clock::run (runtime/execute.cpp), and events take their time from Clock::now_ns.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/config.h"
#include "core/task.h"

namespace emulator {

// A clock that does not compute still has to feed the host: it acts on sampled tokens, lengths and indices. They are
// small, weights and caches are not. So copies up to this size are made and small integer results are defined (worked
// out where they follow from integers alone, else 0); larger copies and all other results are left out, and nobody
// touches the pages of weights and caches, which therefore need no memory of the host.
inline constexpr size_t kHostVisibleBytes = size_t{1} << 20;

class Clock {
 public:
  // Throws Failure for a mode that is not implemented, so that nobody takes host time for modelled time.
  static void check_available(ClockMode mode);

  static bool computes() { return config().clock != ClockMode::kSkip && config().clock != ClockMode::kTiming; }

  static void run(Task& task) {
    if (computes()) {
      task.run();
    } else {
      task.run_without_compute();
    }
  }
  static int64_t now_ns();
};

}  // namespace emulator
