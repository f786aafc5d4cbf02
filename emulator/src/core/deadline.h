// The end of a bounded wait, from CANN's timeouts in milliseconds (-1: wait for ever).
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace emulator {

class Deadline {
 public:
  using Clock = std::chrono::steady_clock;

  static Deadline never() { return Deadline(Clock::time_point::max()); }
  static Deadline after_ms(int64_t timeout_ms) {
    return timeout_ms < 0 ? never() : Deadline(Clock::now() + std::chrono::milliseconds(timeout_ms));
  }

  Clock::time_point time() const { return time_; }
  bool passed() const { return time_ != Clock::time_point::max() && Clock::now() >= time_; }
  // The earlier of this deadline and a moment from now: for waits that must look around now and then.
  Clock::time_point or_in(std::chrono::milliseconds interval) const {
    return std::min(time_, Clock::now() + interval);
  }

 private:
  explicit Deadline(Clock::time_point time) : time_(time) {}
  Clock::time_point time_;
};

}  // namespace emulator
