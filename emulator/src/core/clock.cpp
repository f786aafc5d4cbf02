#include "core/clock.h"

#include <sys/prctl.h>

#include <chrono>
#include <thread>

#include "core/cost.h"
#include "core/spin_lock.h"

namespace emulator {
namespace {

// A sleep ends late by about this much; the rest is polled.
constexpr int64_t kTimerSlackNs = 50'000;  // Linux's own
constexpr int64_t kLatenessNs = kTimerSlackNs + 10'000;

thread_local Timeline* t_timeline = nullptr;
thread_local bool t_sleeps_precisely = false;

int64_t wall_ns() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

}  // namespace

void Clock::adopt(Timeline& timeline) {
  t_timeline = &timeline;
}

Timeline& Clock::timeline() {
  return *t_timeline;
}

void Clock::run(Task& task) {
  if (computes()) {
    task.run();
  } else {
    task.run_without_compute();
  }
  if (models_time() && task.kind() == TaskKind::kKernel) timeline().advance(kernel_cost_ns(task.work()));
}

int64_t Clock::now_ns() {
  return config().time_dilation == 1 ? wall_ns() : static_cast<int64_t>(wall_ns() / config().time_dilation);
}

void Clock::sleep_until(int64_t ns) {
  if (!t_sleeps_precisely) {
    prctl(PR_SET_TIMERSLACK, kTimerSlackNs);  // aclInit leaves a coarser one to the threads of the process
    t_sleeps_precisely = true;
  }
  for (int64_t left; (left = ns - now_ns()) > 0;) {
    const auto wall_left = static_cast<int64_t>(left * config().time_dilation);
    if (wall_left > kLatenessNs) {
      std::this_thread::sleep_for(std::chrono::nanoseconds(wall_left - kLatenessNs));
    } else {
      relax_cpu();
    }
  }
}

}  // namespace emulator
