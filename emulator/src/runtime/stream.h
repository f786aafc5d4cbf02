// An in-order queue of device work with a thread of its own, started at its first task.
#pragma once

#include <acl/acl.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/launch_counts.h"
#include "core/spin_lock.h"
#include "core/task.h"
#include "runtime/deadline.h"

namespace emulator {

class Device;
class Stream;

// Where a stream's tasks go instead of its queue: into a graph being captured, or into an update of its tasks.
class TaskSink {
 public:
  virtual ~TaskSink() = default;
  virtual void accept(Stream& stream, TaskPtr task) = 0;
};

// Work of the runtime itself (events, waits), which is neither counted as a launch nor subject to faults.
class ControlTask : public Task {
 public:
  TaskKind kind() const override { return TaskKind::kHostCallback; }
  void run_without_compute() override { run(); }
  // Runs instead of run() once the device has failed: whoever waits must not wait for ever.
  virtual void run_after_failure() {}
};

class Stream {
 public:
  Stream(Device& device, uint32_t priority, uint32_t flags);

  // The stream behind a handle; null is the current device's default stream. Throws Failure(107003).
  static Stream& from_handle(aclrtStream handle);
  aclrtStream handle() { return this; }
  // The stream whose thread is calling: a captured task learns only when it runs which stream replays it.
  static Stream& running();

  Device& device() const { return device_; }
  int id() const { return id_; }
  uint32_t priority() const { return priority_; }
  uint32_t flags() const { return flags_; }

  void launch(TaskPtr task);   // counted; throws Failure if the device has failed
  void append(TaskPtr task);   // not counted: copies count themselves, control tasks are not work of the program
  bool is_idle() const;
  void synchronize(const Deadline& deadline);  // throws Failure of the device, or 507046 when time is up
  void wait_until_idle();                      // for the end of a stream's life: reports nothing
  void destroy(bool force);                    // force: tasks not yet started are dropped

  // Capture and task update. The sink is called under the stream's lock.
  void redirect(TaskSink* sink);
  TaskSink* sink() const { return sink_.load(std::memory_order_acquire); }

  // True once destroy(force) or the end of the process wants blocked tasks to give up.
  bool is_aborting() const { return aborting_.load(std::memory_order_relaxed); }
  void abort() { aborting_.store(true); }
  bool request_stop_and_wait(const Deadline& deadline);

  LaunchCounts launch_counts() const;
  void reset_launch_counts();

  std::atomic<uint64_t> failure_mode{0};  // ACL_CONTINUE_ON_FAILURE
  std::atomic<uint32_t> overflow_switch{0};

 private:
  struct Submission {
    TaskPtr task;
    int64_t submitted_ns;  // of modelled time; 0 under a clock without one
  };

  void push(TaskPtr task);
  void ensure_started();
  void work();
  bool take(std::vector<Submission>& batch);
  void sleep_until_work();
  void run(Task& task);
  void announce_progress();
  bool wait_finished(uint64_t target, const Deadline& deadline);

  static constexpr uint32_t kAlive = 0x57e4a11e;
  uint32_t magic_ = kAlive;
  Device& device_;
  const int id_;
  const uint32_t priority_;
  const uint32_t flags_;

  // Producer side.
  mutable SpinLock lock_;
  std::vector<Submission> pending_;
  LaunchCounts launch_counts_;
  std::atomic<TaskSink*> sink_{nullptr};
  std::atomic<uint64_t> queued_{0};

  // Consumer side.
  Timeline timeline_;
  std::atomic<bool> started_{false};
  std::atomic<bool> sleeping_{false};
  std::atomic<bool> stopping_{false};
  std::atomic<bool> aborting_{false};
  std::atomic<bool> exited_{false};
  std::mutex wake_mutex_;
  std::condition_variable wake_;
  uint64_t taken_ = 0;

  // Those who wait for progress; the worker notifies only once the nearest target is reached.
  std::atomic<uint64_t> finished_{0};
  std::atomic<uint64_t> nearest_target_{UINT64_MAX};
  std::mutex progress_mutex_;
  std::condition_variable progress_;
};

// Launches of streams that were destroyed.
std::map<std::string, uint64_t> retired_launches();
void clear_retired_launches();

// Runs one unit of work on the calling stream thread: where faults strike and the clock charges.
void execute(Task& task, Stream& stream);

}  // namespace emulator
