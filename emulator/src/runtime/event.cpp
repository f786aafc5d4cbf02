#include "runtime/event.h"

#include <acl/error_codes/rt_error_codes.h>

#include <unordered_map>

#include "core/clock.h"
#include "core/errors.h"
#include "runtime/device.h"
#include "runtime/stream.h"

namespace emulator {
namespace {

// A blocked stream looks up this often: the other device may have failed, or the stream may be destroyed by force.
constexpr auto kLookAround = std::chrono::milliseconds(20);

struct Registry {
  std::mutex mutex;
  std::unordered_map<aclrtEvent, std::shared_ptr<Event>> events;
};

Registry& registry() {
  static auto& instance = *new Registry;
  return instance;
}

// What a mark in the calling stream reads.
int64_t stream_time_ns() {
  return Clock::models_time() ? Clock::timeline().end_ns() : Clock::now_ns();
}

class RecordTask : public ControlTask {
 public:
  RecordTask(std::shared_ptr<Event> event, uint64_t generation) : event_(std::move(event)), generation_(generation) {}
  const char* name() const override { return "EventRecord"; }
  void run() override { event_->finish_record(generation_); }
  void run_after_failure() override { run(); }

 private:
  std::shared_ptr<Event> event_;
  uint64_t generation_;
};

class WaitTask : public ControlTask {
 public:
  WaitTask(std::shared_ptr<Event> event, uint64_t generation) : event_(std::move(event)), generation_(generation) {}
  const char* name() const override { return "EventWait"; }
  void run() override { event_->block_until(generation_, Stream::running()); }

 private:
  std::shared_ptr<Event> event_;
  uint64_t generation_;
};

class FlagTask : public ControlTask {
 public:
  enum class Action { kSet, kClear, kWait };
  FlagTask(std::shared_ptr<Event> event, Action action) : event_(std::move(event)), action_(action) {}
  const char* name() const override { return "EventExternal"; }
  void run() override {
    if (action_ == Action::kWait) {
      event_->block_until_flag(Stream::running());
    } else {
      event_->set_flag(action_ == Action::kSet);
    }
  }

 private:
  std::shared_ptr<Event> event_;
  Action action_;
};

}  // namespace

aclrtEvent Event::create(uint32_t flags) {
  auto event = std::make_shared<Event>(current_device(), flags);
  auto& table = registry();
  std::lock_guard lock(table.mutex);
  table.events[event.get()] = event;
  return event.get();
}

std::shared_ptr<Event> Event::from_handle(aclrtEvent handle) {
  auto& table = registry();
  std::lock_guard lock(table.mutex);
  const auto found = table.events.find(handle);
  if (found == table.events.end()) {
    fail(kInvalidParam, "The event %p does not exist: it was destroyed or never created.", handle);
  }
  return found->second;
}

void Event::destroy(aclrtEvent handle) {
  auto& table = registry();
  std::lock_guard lock(table.mutex);
  if (table.events.erase(handle) == 0) {
    fail(kInvalidParam, "The event %p does not exist: it was destroyed or never created.", handle);
  }
}

void Event::refuse_in_capture() const {
  if (capture_mark.capture.lock() != nullptr) {
    fail(ACL_ERROR_RT_EVENT_CAPTURED, "the event was recorded in a graph capture that is still under way.");
  }
}

void Event::record(Stream& stream) {
  if (is_external()) {
    stream.append(std::make_shared<FlagTask>(shared_from_this(), FlagTask::Action::kSet));
    return;
  }
  if (auto capture = Capture::of(stream)) {
    capture_mark = capture->record_event(stream);
    return;
  }
  capture_mark = {};
  const uint64_t generation = issued_.fetch_add(1) + 1;
  stream.append(std::make_shared<RecordTask>(shared_from_this(), generation));
}

void Event::wait(Stream& stream) {
  if (is_external()) {
    stream.append(std::make_shared<FlagTask>(shared_from_this(), FlagTask::Action::kWait));
    return;
  }
  if (auto capture = capture_mark.capture.lock()) {
    capture->wait_event(stream, capture_mark);
    return;
  }
  if (auto capture = Capture::of(stream)) {
    capture->invalidate();
    fail(ACL_ERROR_RT_CAPTURE_DEPENDENCY,
         "Stream %d is captured and cannot wait for an event recorded outside the capture. Record it inside, or use "
         "an external event.",
         stream.id());
  }
  const uint64_t generation = issued_.load();
  if (is_complete()) return;
  stream.append(std::make_shared<WaitTask>(shared_from_this(), generation));
}

bool Event::is_complete() const {
  if (finished_.load() < issued_.load()) return false;
  return !Clock::models_time() || Clock::now_ns() >= timestamp_ns_.load();
}

void Event::reset(Stream& stream) {
  if (is_external()) {
    stream.append(std::make_shared<FlagTask>(shared_from_this(), FlagTask::Action::kClear));
    return;
  }
  refuse_in_capture();
  stream.append(std::make_shared<FlagTask>(shared_from_this(), FlagTask::Action::kClear));
}

void Event::synchronize(const Deadline& deadline) {
  refuse_in_capture();
  const uint64_t generation = issued_.load();
  std::unique_lock lock(mutex_);
  while (finished_.load() < generation) {
    if (deadline.passed()) {
      fail(ACL_ERROR_RT_EVENT_SYNC_TIMEOUT, "The event was not reached within the time limit.");
    }
    changed_.wait_until(lock, deadline.or_in(std::chrono::hours(1)));
  }
  lock.unlock();
  device_.throw_if_failed();
  if (Clock::models_time()) Clock::sleep_until(timestamp_ns_.load());
}

int64_t Event::timestamp_ns() const {
  if (timestamp_ns_.load() == 0) {
    fail(ACL_ERROR_RT_EVENT_TIMESTAMP_INVALID, "The event has no time stamp: no record of it has finished.");
  }
  return timestamp_ns_.load();
}

void Event::finish_record(uint64_t generation) {
  std::lock_guard lock(mutex_);
  timestamp_ns_.store(stream_time_ns());
  if (generation > finished_.load()) finished_.store(generation);
  changed_.notify_all();
}

void Event::block_until(uint64_t generation, Stream& stream) {
  std::unique_lock lock(mutex_);
  while (finished_.load() < generation && !stream.is_aborting() && !stream.device().has_failed()) {
    changed_.wait_for(lock, kLookAround);
  }
  if (Clock::models_time()) Clock::timeline().reach(timestamp_ns_.load());
}

void Event::set_flag(bool value) {
  std::lock_guard lock(mutex_);
  flag_.store(value);
  if (value) timestamp_ns_.store(stream_time_ns());
  changed_.notify_all();
}

void Event::block_until_flag(Stream& stream) {
  std::unique_lock lock(mutex_);
  while (!flag_.load() && !stream.is_aborting() && !stream.device().has_failed()) {
    changed_.wait_for(lock, kLookAround);
  }
  if (Clock::models_time()) Clock::timeline().reach(timestamp_ns_.load());
}

}  // namespace emulator
