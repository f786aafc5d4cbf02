#include "runtime/stream.h"

#include <acl/error_codes/rt_error_codes.h>
#include <pthread.h>

#include <cstdlib>
#include <thread>
#include <unordered_set>

#include "core/config.h"
#include "core/errors.h"
#include "core/fork.h"
#include "core/spin_lock.h"
#include "runtime/device.h"

namespace emulator {
namespace {

int next_stream_id() {
  static std::atomic<int> next{0};
  return next++;
}

// Stream threads must not run kernels while the C++ runtime destroys the libraries those kernels live in.
void stop_all_streams() {
  if (is_forked_from_user_of_devices()) return;  // their threads run in the parent
  const auto deadline = Deadline::after_ms(2000);
  for (int id = 0; id < device_count(); ++id) {
    for (Stream* stream : device_at(id).streams()) stream->abort();
    for (Stream* stream : device_at(id).streams()) stream->request_stop_and_wait(deadline);
  }
}

thread_local Stream* t_running = nullptr;

// Streams that can be named. A destroyed one keeps its memory, for threads that still use the pointer.
struct LiveStreams {
  std::mutex mutex;
  std::unordered_set<const void*> all;
  std::atomic<uint64_t> generation{1};  // changes when one ends: what threads remember may be wrong then
};

LiveStreams& live() {
  static auto& instance = *new LiveStreams;
  return instance;
}

void add_live(const Stream* stream) {
  std::lock_guard lock(live().mutex);
  live().all.insert(stream);
}

bool remove_live(const Stream* stream) {
  std::lock_guard lock(live().mutex);
  live().generation.fetch_add(1);
  return live().all.erase(stream) != 0;
}

// Every launch asks, mostly for the same stream as before: the table is looked into when that changes.
bool is_live(const void* handle) {
  thread_local const void* t_known = nullptr;
  thread_local uint64_t t_generation = 0;
  const uint64_t generation = live().generation.load();
  if (handle == t_known && generation == t_generation) return true;
  std::lock_guard lock(live().mutex);
  if (live().all.count(handle) == 0) return false;
  t_known = handle;
  t_generation = generation;
  return true;
}

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
    : device_(device),
      id_(next_stream_id()),
      priority_(priority),
      flags_(flags),
      slots_(static_cast<uint64_t>(config().stream_slots)),
      slot_free_ns_(Clock::models_time() ? new std::atomic<int64_t>[slots_]() : nullptr) {
  add_live(this);
}

Stream& Stream::from_handle(aclrtStream handle) {
  refuse_after_fork();
  if (handle == nullptr) return current_device().default_stream();
  if (!is_live(handle)) {
    fail(ACL_ERROR_RT_STREAM_CONTEXT, "The stream %p does not exist: it was destroyed or never created.", handle);
  }
  return *static_cast<Stream*>(handle);
}

Stream& Stream::running() {
  return *t_running;
}

bool Stream::must_give_up() const {
  return aborting_.load(std::memory_order_relaxed) || device_.has_failed();
}

bool must_give_up() {
  return t_running != nullptr && t_running->must_give_up();
}

void Stream::launch(TaskPtr task) {
  enqueue(std::move(task), /*is_launch=*/true);
}

void Stream::append(TaskPtr task) {
  enqueue(std::move(task), /*is_launch=*/false);
}

void Stream::enqueue(TaskPtr task, bool is_launch) {
  ensure_started();
  for (;;) {
    device_.throw_if_failed();
    if (try_enqueue(task, is_launch)) return;
    wait_for_slot();
  }
}

// False if every slot is taken. A graph being captured takes none: it is limited by memory only.
bool Stream::try_enqueue(TaskPtr& task, bool is_launch) {
  const int64_t now_ns = Clock::models_time() ? Clock::now_ns() : 0;
  {
    std::lock_guard lock(lock_);
    if (TaskSink* sink = sink_.load(std::memory_order_relaxed)) {
      sink->accept(*this, std::move(task));
      return true;
    }
    const uint64_t position = queued_.load(std::memory_order_relaxed);
    const bool is_full = position - finished_.load() >= slots_ || (slot_free_ns_ && slot_free_ns(position) > now_ns);
    if (is_full && t_running != this) return false;  // a stream cannot wait for itself
    if (is_launch) launch_counts_.add(task->name());
    pending_.push_back({.task = std::move(task), .submitted_ns = now_ns});
    queued_.store(position + 1);  // sequentially consistent: pairs with sleeping_
  }
  wake_worker();
  return true;
}

// Hardware holds back the host: a stream has so many slots for tasks that have not ended.
void Stream::wait_for_slot() {
  const uint64_t position = queued_.load();
  if (position >= slots_ && finished_.load() < position - slots_ + 1) {
    wait_finished(position - slots_ + 1, Deadline::never());
    if (exited_.load()) {
      fail(ACL_ERROR_RT_STREAM_CONTEXT, "Stream %d was destroyed while a task waited to enter it.", id_);
    }
  } else if (slot_free_ns_) {
    Clock::sleep_until(slot_free_ns(position));
  }
}

void Stream::wake_worker() {
  if (!sleeping_.load()) return;
  std::lock_guard wake_lock(wake_mutex_);
  wake_.notify_one();
}

void Stream::ensure_started() {
  if (started_.load(std::memory_order_acquire)) return;
  note_device_use();
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
      finish_one();
    }
    batch.clear();
  }
  std::lock_guard lock(progress_mutex_);
  exited_.store(true);
  progress_.notify_all();
}

void Stream::finish_one() {
  const uint64_t finished = finished_.load(std::memory_order_relaxed);
  if (slot_free_ns_) slot_free_ns(finished).store(timeline_.end_ns());
  finished_.store(finished + 1);
  if (finished + 1 >= nearest_target_.load()) announce_progress();
}

bool Stream::take(std::vector<Submission>& batch) {
  for (;;) {
    if (stopping_.load() && (aborting_.load() || queued_.load() == taken_)) return false;
    if (queued_.load() != taken_) break;
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
  } catch (const GaveUp&) {
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

// Nothing that is queued will be done, or not for as long as the program's own code takes.
bool Stream::is_abandoned() const {
  return exited_.load() || (device_.has_failed() && runs_host_code_.load());
}

// Until so many tasks have finished, or the stream is abandoned. False when time is up.
bool Stream::wait_finished(uint64_t target, const Deadline& deadline) {
  const auto reached = [&] { return finished_.load() >= target || is_abandoned(); };
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
  const uint64_t target = queued_.load();
  if (!wait_finished(target, deadline)) {
    fail(ACL_ERROR_RT_STREAM_SYNC_TIMEOUT, "Stream %d did not finish within the time limit.", id_);
  }
  if (finished_.load() < target && !device_.has_failed()) {
    fail(ACL_ERROR_RT_STREAM_CONTEXT, "Stream %d was destroyed by force before its tasks were done.", id_);
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
  return progress_.wait_until(lock, deadline.or_in(std::chrono::hours(1)), [this] { return is_abandoned(); });
}

void Stream::destroy(bool force) {
  if (!remove_live(this)) return;  // another thread was first
  if (force || device_.has_failed()) abort();
  if (!force && started_.load()) wait_until_idle();
  request_stop_and_wait(Deadline::never());
  device_.forget_stream(this);
  {
    std::lock_guard lock(g_retired_mutex);
    launch_counts().merge_into(retired());
  }
  std::vector<Submission> dropped;
  std::lock_guard lock(lock_);
  dropped.swap(pending_);
}

bool Stream::redirect(TaskSink* from, TaskSink* to) {
  std::lock_guard lock(lock_);
  if (sink_.load() != from) return false;
  sink_.store(to, std::memory_order_release);
  return true;
}

HostCode::HostCode() {
  t_running->runs_host_code_.store(true);
  if (t_running->device_.has_failed()) t_running->announce_progress();
}

HostCode::~HostCode() {
  t_running->runs_host_code_.store(false);
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
