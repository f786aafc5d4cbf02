#include "runtime/event.h"

#include <acl/error_codes/rt_error_codes.h>

#include "core/clock.h"
#include "core/errors.h"
#include "runtime/device.h"
#include "runtime/handles.h"
#include "runtime/stream.h"

namespace emulator {
namespace {

// Whoever waits looks up this often: a device may have failed, or the stream may be destroyed by force.
constexpr auto kLookAround = std::chrono::milliseconds(20);

HandleTable<Event>& events() {
  static auto& table = *new HandleTable<Event>(kInvalidParam, "event");
  return table;
}

// What a mark in the calling stream reads.
int64_t stream_time_ns() {
  return Clock::models_time() ? Clock::timeline().end_ns() : Clock::now_ns();
}

// A record that goes away with its task was never reached: a stream was destroyed by force, or an update refused it.
class RecordTask : public ControlTask {
 public:
  explicit RecordTask(std::shared_ptr<Record> record) : record_(std::move(record)) {}
  ~RecordTask() override { record_->drop(); }
  const char* name() const override { return "EventRecord"; }
  void run() override { record_->reach(stream_time_ns()); }
  void run_after_failure() override { record_->drop(); }  // what is ahead of it was never done

 private:
  std::shared_ptr<Record> record_;
};

class WaitTask : public ControlTask {
 public:
  explicit WaitTask(std::shared_ptr<Record> record) : record_(std::move(record)) {}
  const char* name() const override { return "EventWait"; }
  void run() override {
    record_->block(Stream::running());
    if (Clock::models_time()) Clock::timeline().reach(record_->timestamp_ns());
  }

 private:
  std::shared_ptr<Record> record_;
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
  // A stream of a healthy device may wait for the flag.
  void run_after_failure() override {
    if (action_ == Action::kSet) run();
  }

 private:
  std::shared_ptr<Event> event_;
  Action action_;
};

}  // namespace

bool Record::is_complete() const {
  return is_over() && (!Clock::models_time() || Clock::now_ns() >= timestamp_ns());
}

void Record::finish(State state, int64_t timestamp_ns) {
  std::lock_guard lock(mutex_);
  if (is_over()) return;
  timestamp_ns_.store(timestamp_ns);
  state_.store(state);
  over_.notify_all();
}

void Record::reach(int64_t timestamp_ns) {
  finish(State::kReached, timestamp_ns);
}

void Record::drop() {
  if (!is_over()) finish(State::kDropped, 0);
}

bool Record::wait(const Deadline& deadline) {
  std::unique_lock lock(mutex_);
  while (!is_over() && !device_.has_failed()) {
    if (deadline.passed()) return false;
    over_.wait_until(lock, deadline.or_in(kLookAround));
  }
  return true;
}

void Record::block(const Stream& stream) {
  std::unique_lock lock(mutex_);
  while (!is_over() && !device_.has_failed() && !stream.must_give_up()) over_.wait_for(lock, kLookAround);
}

aclrtEvent Event::create(uint32_t flags) {
  auto event = std::make_shared<Event>(current_device(), flags);
  events().add(event);
  return event.get();
}

std::shared_ptr<Event> Event::from_handle(aclrtEvent handle) {
  return events().find(handle);
}

void Event::destroy(aclrtEvent handle) {
  events().take(handle);
}

Event::Last Event::last() const {
  std::lock_guard lock(mutex_);
  return last_;
}

void Event::set_last(std::shared_ptr<Record> record, CaptureMark mark) {
  std::lock_guard lock(mutex_);
  last_ = {std::move(record), std::move(mark)};
}

void Event::refuse_in_capture() const {
  if (last().mark.capture.lock() != nullptr) {
    fail(ACL_ERROR_RT_EVENT_CAPTURED, "the event was recorded in a graph capture that is still under way.");
  }
}

void Event::record(Stream& stream) {
  if (is_external()) {
    stream.append(std::make_shared<FlagTask>(shared_from_this(), FlagTask::Action::kSet));
    return;
  }
  if (auto capture = Capture::of(stream)) {
    set_last(last().record, capture->record_event(stream));
    return;
  }
  auto record = std::make_shared<Record>(stream.device());
  stream.append(std::make_shared<RecordTask>(record));  // first: a record that is refused is none
  set_last(std::move(record), {});
}

void Event::wait(Stream& stream) {
  if (is_external()) {
    stream.append(std::make_shared<FlagTask>(shared_from_this(), FlagTask::Action::kWait));
    return;
  }
  const Last last = this->last();
  if (auto capture = last.mark.capture.lock()) {
    capture->wait_event(stream, last.mark);
    return;
  }
  if (auto capture = Capture::of(stream)) {
    capture->invalidate();
    fail(ACL_ERROR_RT_CAPTURE_DEPENDENCY,
         "Stream %d is captured and cannot wait for an event recorded outside the capture. Record it inside, or use "
         "an external event.",
         stream.id());
  }
  if (last.record == nullptr || last.record->is_complete()) return;
  stream.append(std::make_shared<WaitTask>(last.record));
}

bool Event::is_complete() const {
  const auto record = last().record;
  if (record == nullptr) return true;
  if (!record->was_reached()) record->device().throw_if_failed();
  return record->is_complete();
}

void Event::reset(Stream& stream) {
  if (!is_external()) refuse_in_capture();
  stream.append(std::make_shared<FlagTask>(shared_from_this(), FlagTask::Action::kClear));
}

void Event::synchronize(const Deadline& deadline) {
  refuse_in_capture();
  const auto record = last().record;
  if (record != nullptr && !record->wait(deadline)) {
    fail(ACL_ERROR_RT_EVENT_SYNC_TIMEOUT, "The event was not reached within the time limit.");
  }
  if (record != nullptr) record->device().throw_if_failed();
  device_.throw_if_failed();
  if (record != nullptr && Clock::models_time()) Clock::sleep_until(record->timestamp_ns());
}

int64_t Event::timestamp_ns() const {
  int64_t timestamp_ns = 0;
  if (is_external()) {
    std::lock_guard lock(mutex_);
    timestamp_ns = flag_timestamp_ns_;
  } else if (const auto record = last().record) {
    timestamp_ns = record->timestamp_ns();
  }
  if (timestamp_ns == 0) {
    fail(ACL_ERROR_RT_EVENT_TIMESTAMP_INVALID, "The event has no time stamp: its last record has not been reached.");
  }
  return timestamp_ns;
}

void Event::set_flag(bool value) {
  std::lock_guard lock(mutex_);
  flag_ = value;
  if (value) flag_timestamp_ns_ = stream_time_ns();
  flag_set_.notify_all();
}

void Event::block_until_flag(Stream& stream) {
  std::unique_lock lock(mutex_);
  while (!flag_ && !stream.must_give_up()) flag_set_.wait_for(lock, kLookAround);
  if (Clock::models_time()) Clock::timeline().reach(flag_timestamp_ns_);
}

}  // namespace emulator
