#include "runtime/stream.h"

#include <acl/error_codes/rt_error_codes.h>
#include <pthread.h>

#include <cstdlib>
#include <thread>

#include "core/errors.h"
#include "runtime/device.h"

namespace emulator {
namespace {

// Long enough to span the host's time between two small operators, short enough not to matter when idle.
constexpr auto kSpinTime = std::chrono::microseconds(20);

// Polls a condition for kSpinTime. True as soon as it holds.
template <typename Condition>
bool spin_until(Condition&& condition) {
  const auto end = Deadline::Clock::now() + kSpinTime;
  do {
    for (int i = 0; i < 32; ++i) {
      if (condition()) return true;
      relax_cpu();
    }
  } while (Deadline::Clock::now() < end);
  return false;
}

int next_stream_id() {
  static std::atomic<int> next{0};
  return next++;
}

// Stream threads must not run kernels while the C++ runtime destroys the libraries those kernels live in.
void stop_all_streams() {
  const auto deadline = Deadline::after_ms(2000);
  for (int id = 0; id < device_count(); ++id) {
    for (Stream* stream : device_at(id).streams()) stream->abort();
    for (Stream* stream : device_at(id).streams()) stream->request_stop_and_wait(deadline);
  }
}

thread_local Stream* t_running = nullptr;

std::mutex g_retired_mutex;

std::map<std::string, uint64_t>& retired() {
  static auto& counts = *new std::map<std::string, uint64_t>;
  return counts;
}

}  // namespace

std::map<std::string, uint64_t> retired_launches() {
  std::lock_guard lock(g_retired_mutex);
  return retired();
}

void clear_retired_launches() {
  std::lock_guard lock(g_retired_mutex);
  retired().clear();
}

Stream::Stream(Device& device, uint32_t priority, uint32_t flags)
    : device_(device), id_(next_stream_id()), priority_(priority), flags_(flags) {}

Stream& Stream::from_handle(aclrtStream handle) {
  if (handle == nullptr) return current_device().default_stream();
  auto* stream = static_cast<Stream*>(handle);
  if (stream->magic_ != kAlive) {
    fail(ACL_ERROR_RT_STREAM_CONTEXT, "The stream %p does not exist: it was destroyed or never created.", handle);
  }
  return *stream;
}

Stream& Stream::running() {
  return *t_running;
}

void Stream::launch(TaskPtr task) {
  device_.throw_if_failed();
  ensure_started();
  std::unique_lock lock(lock_);
  if (TaskSink* sink = sink_.load(std::memory_order_relaxed)) {
    sink->accept(*this, std::move(task));
    return;
  }
  launch_counts_.add(task->name());
  push(std::move(task));
}

void Stream::append(TaskPtr task) {
  device_.throw_if_failed();
  ensure_started();
  std::unique_lock lock(lock_);
  if (TaskSink* sink = sink_.load(std::memory_order_relaxed)) {
    sink->accept(*this, std::move(task));
    return;
  }
  push(std::move(task));
}

// Called with lock_ held: the order of the queue is the order of the calls.
void Stream::push(TaskPtr task) {
  pending_.push_back({.task = std::move(task), .submitted_ns = Clock::models_time() ? Clock::now_ns() : 0});
  queued_.store(queued_.load(std::memory_order_relaxed) + 1);  // sequentially consistent: pairs with sleeping_
  if (sleeping_.load()) {
    std::lock_guard wake_lock(wake_mutex_);
    wake_.notify_one();
  }
}

void Stream::ensure_started() {
  if (started_.load(std::memory_order_acquire)) return;
  std::lock_guard lock(wake_mutex_);
  if (started_.load()) return;
  static const int registered = std::atexit(stop_all_streams);
  (void)registered;
  std::thread([this] { work(); }).detach();  // stop_all_streams() and destroy() wait for exited_
  started_.store(true, std::memory_order_release);
}

void Stream::work() {
  t_running = this;
  Clock::adopt(timeline_);
  set_current_context(device_.primary_context());
  pthread_setname_np(pthread_self(), ("npu" + std::to_string(device_.id()) + "-s" + std::to_string(id_)).c_str());
  std::vector<Submission> batch;
  while (take(batch)) {
    for (auto& [task, submitted_ns] : batch) {
      timeline_.reach(submitted_ns);
      if (!stopping_.load(std::memory_order_relaxed) || !aborting_.load(std::memory_order_relaxed)) run(*task);
      task.reset();  // before progress is announced: what the task owned is released once a wait returns
      finished_.store(finished_.load(std::memory_order_relaxed) + 1);
      if (finished_.load() >= nearest_target_.load()) announce_progress();
    }
    batch.clear();
  }
  std::lock_guard lock(progress_mutex_);
  exited_.store(true);
  progress_.notify_all();
}

bool Stream::take(std::vector<Submission>& batch) {
  while (queued_.load() == taken_) {
    if (stopping_.load()) return false;
    if (!spin_until([this] { return queued_.load(std::memory_order_relaxed) != taken_ || stopping_.load(); })) {
      sleep_until_work();
    }
  }
  std::lock_guard lock(lock_);
  batch.swap(pending_);
  taken_ += batch.size();
  return true;
}

void Stream::sleep_until_work() {
  std::unique_lock lock(wake_mutex_);
  sleeping_.store(true);
  wake_.wait(lock, [this] { return queued_.load() != taken_ || stopping_.load(); });
  sleeping_.store(false);
}

void Stream::run(Task& task) {
  if (device_.has_failed()) {
    if (auto* control = dynamic_cast<ControlTask*>(&task)) control->run_after_failure();
    return;
  }
  try {
    execute(task, *this);
  } catch (const Failure& failure) {
    // What a kernel finds wrong at run time (an index out of range) is an exception of the AI core to the host.
    const bool is_device_code = failure.code() >= 507000 && failure.code() < 508000;
    device_.report_failure(is_device_code ? failure.code() : kAicoreException,
                           std::string(task.name()) + ": " + failure.what());
  } catch (const std::exception& error) {
    device_.report_failure(kAicoreException, std::string(task.name()) + ": " + error.what());
  }
}

void Stream::announce_progress() {
  std::lock_guard lock(progress_mutex_);
  nearest_target_.store(UINT64_MAX);  // waiters that are not served yet set it again
  progress_.notify_all();
}

bool Stream::wait_finished(uint64_t target, const Deadline& deadline) {
  const auto reached = [&] { return finished_.load() >= target; };
  if (spin_until(reached)) return true;
  std::unique_lock lock(progress_mutex_);
  while (!reached()) {
    if (target < nearest_target_.load()) nearest_target_.store(target);
    if (reached()) break;  // the worker may have passed the target before it could see it
    if (deadline.passed()) return false;
    progress_.wait_until(lock, deadline.or_in(std::chrono::hours(1)));
  }
  return true;
}

void Stream::synchronize(const Deadline& deadline) {
  if (!wait_finished(queued_.load(), deadline)) {
    fail(ACL_ERROR_RT_STREAM_SYNC_TIMEOUT, "Stream %d did not finish within the time limit.", id_);
  }
  if (Clock::models_time()) Clock::sleep_until(timeline_.end_ns());
  device_.throw_if_failed();
}

bool Stream::is_idle() const {
  if (finished_.load() != queued_.load()) return false;
  return !Clock::models_time() || Clock::now_ns() >= timeline_.end_ns();
}

void Stream::wait_until_idle() {
  wait_finished(queued_.load(), Deadline::never());
}

bool Stream::request_stop_and_wait(const Deadline& deadline) {
  if (!started_.load()) return true;
  {
    std::lock_guard lock(wake_mutex_);
    stopping_.store(true);
    wake_.notify_one();
  }
  std::unique_lock lock(progress_mutex_);
  return progress_.wait_until(lock, deadline.or_in(std::chrono::hours(1)), [this] { return exited_.load(); });
}

void Stream::destroy(bool force) {
  if (force) abort();
  if (!force && started_.load()) wait_until_idle();
  request_stop_and_wait(Deadline::never());
  device_.forget_stream(this);
  {
    std::lock_guard lock(g_retired_mutex);
    launch_counts().merge_into(retired());
  }
  magic_ = 0;  // the object stays: a stale handle is recognised instead of followed into freed memory
  pending_.clear();
  pending_.shrink_to_fit();
}

void Stream::redirect(TaskSink* sink) {
  std::lock_guard lock(lock_);
  sink_.store(sink, std::memory_order_release);
}

LaunchCounts Stream::launch_counts() const {
  std::lock_guard lock(lock_);
  return launch_counts_;
}

void Stream::reset_launch_counts() {
  std::lock_guard lock(lock_);
  launch_counts_.clear();
}

void submit(aclrtStream handle, TaskPtr task) {
  Stream& stream = Stream::from_handle(handle);
  if (task->kind() == TaskKind::kCopy || task->kind() == TaskKind::kHostCallback) {
    stream.append(std::move(task));
  } else {
    stream.launch(std::move(task));
  }
}

}  // namespace emulator
