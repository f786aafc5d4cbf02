#include <thread>

#include "core/clock.h"
#include "core/faults.h"
#include "core/modeled_time.h"
#include "runtime/device.h"
#include "runtime/stream.h"

namespace emulator {
namespace {

void run_slowly(Task& task, double factor) {
  if (Clock::models_time()) {
    const int64_t start = Clock::timeline().end_ns();
    Clock::run(task);
    Clock::timeline().advance(static_cast<int64_t>((Clock::timeline().end_ns() - start) * (factor - 1)));
    return;
  }
  const auto start = std::chrono::steady_clock::now();
  Clock::run(task);
  std::this_thread::sleep_for((std::chrono::steady_clock::now() - start) * (factor - 1));
}

void run_with_faults(Task& task, Stream& stream) {
  const bool is_launch = task.kind() == TaskKind::kKernel || task.kind() == TaskKind::kCollective;
  if (is_launch && faults().any()) [[unlikely]] {
    const int chip = stream.device().chip_index();
    faults().check_launch(task, chip);
    const double factor = faults().slow_factor(chip);
    if (factor > 1) return run_slowly(task, factor);
  }
  Clock::run(task);
}

}  // namespace

void execute(Task& task, Stream& stream) {
  // A replay is the sum of its nodes, which come here one by one.
  if (!Clock::models_time() || task.kind() == TaskKind::kHostCallback) return run_with_faults(task, stream);
  const int64_t start = Clock::timeline().end_ns();
  run_with_faults(task, stream);
  add_modeled_time(task.name(), Clock::timeline().end_ns() - start);
}

}  // namespace emulator
