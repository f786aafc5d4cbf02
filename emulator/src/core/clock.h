// What a task takes: the CPU's time to compute it, its modelled time on the emulated chip, or both. The one seam:
// every task of every stream and of every replayed graph passes through Clock::run (runtime/execute.cpp).
//
// Modelled time. Host time runs on as it is; each stream has a Timeline, the moment at which the work queued so far
// ends. A task starts when the host has submitted it and the stream is free, and moves that moment by its cost:
// end = max(end, submitted) + cost. An event takes the stream's end; a stream that waits for it moves its own end to
// at least that; a query compares with now, and whoever synchronizes sleeps until then.
//
// ASCEND_EMULATOR_TIME_DILATION=k slows the modelled machine: a modelled second takes k seconds of the wall clock, so
// that the host seems k times as fast (Gupta et al., "Time-warped network emulation", NSDI 2006). A small machine
// that emulates many chips needs it; whoever reads a wall clock divides by k.
#pragma once

#include <atomic>
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

// When the work of a stream ends, in modelled nanoseconds. Written by the stream's thread only.
class Timeline {
 public:
  int64_t end_ns() const { return end_ns_.load(std::memory_order_acquire); }
  void set_end(int64_t ns) { end_ns_.store(ns, std::memory_order_release); }
  void reach(int64_t ns) {
    if (ns > end_ns()) set_end(ns);
  }
  void advance(int64_t cost_ns) { set_end(end_ns() + cost_ns); }

 private:
  std::atomic<int64_t> end_ns_{0};
};

class Clock {
 public:
  static bool computes() { return config().clock != ClockMode::kSkip && config().clock != ClockMode::kTiming; }
  static bool models_time() { return config().clock == ClockMode::kTiming || config().clock == ClockMode::kBoth; }

  // On a stream's thread, which has called adopt(). Copies and collectives charge their own cost.
  static void run(Task& task);

  // Makes `timeline` the one of the calling thread.
  static void adopt(Timeline& timeline);
  static Timeline& timeline();

  // Modelled time: that of the wall clock, undilated. The same in all processes of the machine.
  static int64_t now_ns();
  static void sleep_until(int64_t ns);
};

}  // namespace emulator
