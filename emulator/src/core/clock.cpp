#include "core/clock.h"

#include <chrono>

#include "core/errors.h"

namespace emulator {

void Clock::check_available(ClockMode mode) {
  if (mode == ClockMode::kTiming || mode == ClockMode::kBoth) {
    fail(ACL_ERROR_FEATURE_UNSUPPORTED,
         "ASCEND_EMULATOR_CLOCK: the model of time (timing, both) is not implemented yet; functional and skip are.");
  }
}

int64_t Clock::now_ns() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

}  // namespace emulator
