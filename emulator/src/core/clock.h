// How long a task takes on the emulated chip. The one seam for a model of time: every task of every stream and of
// every replayed graph passes through Clock::run (runtime/execute.cpp), and events take their time from Clock::now_ns.
#pragma once

#include <cstdint>

#include "core/config.h"
#include "core/task.h"

namespace emulator {

class Clock {
 public:
  // Throws Failure for a mode that is not implemented, so that nobody takes host time for modelled time.
  static void check_available(ClockMode mode);

  static void run(Task& task) { task.run(); }
  static int64_t now_ns();
};

}  // namespace emulator
