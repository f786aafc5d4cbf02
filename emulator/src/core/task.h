// A unit of device work: what streams queue, graphs replay, counters count and the clock charges.
#pragma once

#include <acl/acl.h>

#include <memory>
#include <string_view>

namespace emulator {

enum class TaskKind { kKernel, kCopy, kCollective, kHostCallback };

// Arithmetic and traffic of one launch, from which the model of time derives its duration on the named chip.
struct Work {
  double cube_flops = 0;     // matrix unit
  double vector_flops = 0;   // vector unit
  double read_bytes = 0;
  double written_bytes = 0;
  bool int8_cube = false;    // cube_flops run at the chip's int8 rate
  double ai_cpu_ns = 0;      // an operator that no core runs: what the chip's AI CPU takes, besides
};

// Runs on a stream's thread. A captured graph replays the same object many times, so run() must not consume it:
// everything it needs is owned by value, and device memory is read when it runs.
class Task {
 public:
  virtual ~Task() = default;
  virtual const char* name() const = 0;  // "aclnnAdd", "PagedAttention", "HcclAllReduce": static storage
  virtual TaskKind kind() const { return TaskKind::kKernel; }
  virtual void run() = 0;                // throws Failure; the stream then reports it as hardware does
  // What is left of run() under a clock that does not compute: results on which the host acts. See core/clock.h.
  virtual void run_without_compute() {}
  virtual Work work() const { return {}; }
};

using TaskPtr = std::shared_ptr<Task>;

// For a task that blocks its stream: whether it has to end, because the device has failed or the stream is being
// destroyed by force. On a stream's thread; false on others.
bool must_give_up();

// What such a task may throw then. It is nobody's failure.
struct GaveUp {};

// Appends to the stream's queue, or to the graph being captured from it. A null stream is the context's default.
// Returns at once; throws Failure if the stream is unknown or the device has failed.
void submit(aclrtStream stream, TaskPtr task);

}  // namespace emulator
