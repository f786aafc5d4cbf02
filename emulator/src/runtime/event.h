// Events: marks in streams that streams and the host wait for.
//
// Each record makes a Record of its own, and a wait holds the one that was the last when it was issued, as on CUDA and
// on CANN's Ex events: to record the event again changes nothing for who waits already. Events made with
// ACL_EVENT_EXTERNAL are flags instead: a wait passes when the flag is set, whenever it was set, and a reset clears it.
#pragma once

#include <acl/acl.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>

#include "runtime/capture.h"
#include "core/deadline.h"

namespace emulator {

class Device;
class Stream;

// One mark in one stream: ahead, then reached at some time, or dropped with the queue it lay in.
class Record {
 public:
  explicit Record(Device& device) : device_(device) {}

  Device& device() const { return device_; }  // of the stream
  bool is_over() const { return state_.load() != State::kAhead; }
  bool was_reached() const { return state_.load() == State::kReached; }
  bool is_complete() const;  // over, and at the modelled time too
  int64_t timestamp_ns() const { return timestamp_ns_.load(); }  // 0: not reached

  void reach(int64_t timestamp_ns);
  void drop();  // unless it was reached
  // Until the record is over or its device has failed. False when time is up.
  bool wait(const Deadline& deadline);
  void block(const Stream& stream);  // on that stream's thread; ends early if the stream must give up

 private:
  enum class State { kAhead, kReached, kDropped };
  void finish(State state, int64_t timestamp_ns);

  Device& device_;
  std::atomic<State> state_{State::kAhead};
  std::atomic<int64_t> timestamp_ns_{0};
  std::mutex mutex_;
  std::condition_variable over_;
};

class Event : public std::enable_shared_from_this<Event> {
 public:
  Event(Device& device, uint32_t flags) : device_(device), flags_(flags) {}

  static aclrtEvent create(uint32_t flags);                       // on the current device
  static std::shared_ptr<Event> from_handle(aclrtEvent handle);  // throws Failure(107000)
  static void destroy(aclrtEvent handle);

  bool is_external() const { return (flags_ & ACL_EVENT_EXTERNAL) != 0; }
  bool is_complete() const;  // throws Failure of the device if the last record will never be reached

  void record(Stream& stream);
  void wait(Stream& stream);
  void reset(Stream& stream);
  void synchronize(const Deadline& deadline);  // of the host; throws Failure of the device, or 507047
  int64_t timestamp_ns() const;                // of the last record; throws Failure(107006) until it is reached

  // For the tasks that an external event leaves in streams.
  void set_flag(bool value);
  void block_until_flag(Stream& stream);

 private:
  // The last record: in a stream, or in a graph that is being captured.
  struct Last {
    std::shared_ptr<Record> record;
    CaptureMark mark;
  };
  Last last() const;
  void set_last(std::shared_ptr<Record> record, CaptureMark mark);
  void refuse_in_capture() const;

  Device& device_;
  const uint32_t flags_;
  mutable std::mutex mutex_;
  Last last_;
  bool flag_ = false;
  int64_t flag_timestamp_ns_ = 0;
  std::condition_variable flag_set_;
};

}  // namespace emulator
