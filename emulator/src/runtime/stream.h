// An in-order queue of device work with a thread of its own, started at its first task.
#pragma once

#include <acl/acl.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/launch_counts.h"
#include "core/spin_lock.h"
#include "core/task.h"
#include "core/deadline.h"

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

// While a stream runs code of the program, a failed device cannot end it: who waits for the stream does not wait for
// that.
class HostCode {
 public:
  HostCode();
  ~HostCode();
  HostCode(const HostCode&) = delete;
  HostCode& operator=(const HostCode&) = delete;
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

  // Both wait while all task slots are taken (ASCEND_EMULATOR_STREAM_SLOTS); throw Failure if the device has failed.
  void launch(TaskPtr task);   // counted
  void append(TaskPtr task);   // not counted: copies count themselves, control tasks are not work of the program
  bool is_idle() const;
  void synchronize(const Deadline& deadline);  // throws Failure of the device, or 507046 when time is up
  void wait_until_idle();                      // for the end of a stream's life: reports nothing
  void destroy(bool force);                    // force: tasks not yet started are dropped

  // Capture and task update. The sink is called under the stream's lock; `from` to `to`, or false if it is not `from`.
  bool redirect(TaskSink* from, TaskSink* to);
  TaskSink* sink() const { return sink_.load(std::memory_order_acquire); }

  // Whether a task that blocks this stream has to end: the device has failed, or nobody wants the stream any more.
  bool must_give_up() const;
  void abort() { aborting_.store(true); }  // destroy(force), or the end of the process
  bool request_stop_and_wait(const Deadline& deadline);
  void announce_progress();  // whoever waits for the stream looks again

  LaunchCounts launch_counts() const;
  void reset_launch_counts();

  std::atomic<uint64_t> failure_mode{0};  // ACL_CONTINUE_ON_FAILURE
  std::atomic<uint32_t> overflow_switch{0};

 private:
  struct Submission {
    TaskPtr task;
    int64_t submitted_ns;  // of modelled time; 0 under a clock without one
  };

  void enqueue(TaskPtr task, bool is_launch);
  bool try_enqueue(TaskPtr& task, bool is_launch);
  void wait_for_slot();
  void wake_worker();
  void ensure_started();
  void work();
  bool take(std::vector<Submission>& batch);
  void sleep_until_work();
  void run(Task& task);
  void finish_one();
  bool is_abandoned() const;
  bool wait_finished(uint64_t target, const Deadline& deadline);
  std::atomic<int64_t>& slot_free_ns(uint64_t task) { return slot_free_ns_[task % slots_]; }

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
  const uint64_t slots_;
  std::unique_ptr<std::atomic<int64_t>[]> slot_free_ns_;  // modelled time at which each slot's last task ended

  // Consumer side.
  Timeline timeline_;
  std::atomic<bool> started_{false};
  std::atomic<bool> sleeping_{false};
  std::atomic<bool> stopping_{false};
  std::atomic<bool> aborting_{false};
  std::atomic<bool> exited_{false};
  std::atomic<bool> runs_host_code_{false};
  friend class HostCode;
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
