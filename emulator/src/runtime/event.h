// Events: marks in streams that streams and the host wait for.
//
// A record gives the event a new generation; a wait waits for the generation that was last recorded when it was
// issued, as on CUDA and on CANN's Ex events. Events made with ACL_EVENT_EXTERNAL are flags instead: a wait passes
// when the flag is set, whenever it was set, and a reset clears it.
#pragma once

#include <acl/acl.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>

#include "runtime/capture.h"
#include "runtime/deadline.h"

namespace emulator {

class Device;
class Stream;

class Event : public std::enable_shared_from_this<Event> {
 public:
  Event(Device& device, uint32_t flags) : device_(device), flags_(flags) {}

  static aclrtEvent create(uint32_t flags);                       // on the current device
  static std::shared_ptr<Event> from_handle(aclrtEvent handle);  // throws Failure(107000)
  static void destroy(aclrtEvent handle);

  bool is_external() const { return (flags_ & ACL_EVENT_EXTERNAL) != 0; }
  bool is_recorded() const { return issued_.load() != 0; }
  bool is_complete() const;

  void record(Stream& stream);
  void wait(Stream& stream);
  void reset(Stream& stream);
  void synchronize(const Deadline& deadline);  // of the host; throws Failure of the device, or 507047
  int64_t timestamp_ns() const;                // of the last finished record; throws Failure(107006) without one

  // For the tasks that record() and wait() leave in streams.
  void finish_record(uint64_t generation);
  void block_until(uint64_t generation, Stream& stream);
  void set_flag(bool value);
  void block_until_flag(Stream& stream);

  CaptureMark capture_mark;  // set while the last record belongs to a graph being captured

 private:
  void refuse_in_capture() const;

  Device& device_;
  const uint32_t flags_;
  std::atomic<uint64_t> issued_{0};
  std::atomic<uint64_t> finished_{0};
  std::atomic<int64_t> timestamp_ns_{0};
  std::atomic<bool> flag_{false};
  mutable std::mutex mutex_;
  std::condition_variable changed_;
};

}  // namespace emulator
