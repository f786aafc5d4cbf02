// Events, and waiting for values in device memory.
#include <acl/acl.h>
#include <acl/error_codes/rt_error_codes.h>

#include <algorithm>

#include "core/chips.h"
#include "core/errors.h"
#include "core/stats.h"
#include "runtime/allocations.h"
#include "runtime/device.h"
#include "runtime/event.h"
#include "runtime/memory_value.h"
#include "runtime/stream.h"

using namespace emulator;

namespace {

void synchronize(aclrtEvent handle, const Deadline& deadline) {
  count_sync(Sync::kEvent);
  Event::from_handle(handle)->synchronize(deadline);
}

// An event that was never recorded has nothing to wait for.
bool is_complete(aclrtEvent handle) {
  count(stats().event_queries);
  return Event::from_handle(handle)->is_complete();
}

aclrtEvent create(uint32_t flags) {
  if ((flags & ACL_EVENT_IPC) != 0) {
    fail(ACL_ERROR_RT_FEATURE_NOT_SUPPORT, "events shared between processes are not emulated.");
  }
  return Event::create(flags);
}

}  // namespace

extern "C" {

aclError aclrtCreateEvent(aclrtEvent* event) {
  return guarded("aclrtCreateEvent", [&] {
    give(event, "event", [&] { return create(ACL_EVENT_SYNC | ACL_EVENT_TIME_LINE); });
  });
}

aclError aclrtCreateEventWithFlag(aclrtEvent* event, uint32_t flags) {
  return guarded("aclrtCreateEventWithFlag", [&] { give(event, "event", [&] { return create(flags); }); });
}

aclError aclrtCreateEventExWithFlag(aclrtEvent* event, uint32_t flags) {
  return guarded("aclrtCreateEventExWithFlag", [&] { give(event, "event", [&] { return create(flags); }); });
}

aclError aclrtDestroyEvent(aclrtEvent event) {
  return guarded("aclrtDestroyEvent", [&] { Event::destroy(event); });
}

aclError aclrtRecordEvent(aclrtEvent event, aclrtStream stream) {
  return guarded("aclrtRecordEvent", [&] {
    count(stats().event_records);
    Event::from_handle(event)->record(Stream::from_handle(stream));
  });
}

aclError aclrtStreamWaitEvent(aclrtStream stream, aclrtEvent event) {
  return guarded("aclrtStreamWaitEvent", [&] {
    count(stats().event_waits);
    Event::from_handle(event)->wait(Stream::from_handle(stream));
  });
}

aclError aclrtStreamWaitEventWithTimeout(aclrtStream stream, aclrtEvent event, int32_t timeout_ms) {
  return aclrtStreamWaitEvent(stream, event);  // a wait that never ends shows at the next synchronization
}

aclError aclrtResetEvent(aclrtEvent event, aclrtStream stream) {
  return guarded("aclrtResetEvent", [&] { Event::from_handle(event)->reset(Stream::from_handle(stream)); });
}

aclError aclrtQueryEventStatus(aclrtEvent event, aclrtEventRecordedStatus* status) {
  return guarded("aclrtQueryEventStatus", [&] {
    give(status, "status",
         [&] { return is_complete(event) ? ACL_EVENT_RECORDED_STATUS_COMPLETE : ACL_EVENT_RECORDED_STATUS_NOT_READY; });
  });
}

aclError aclrtQueryEvent(aclrtEvent event, aclrtEventStatus* status) {
  return guarded("aclrtQueryEvent", [&] {
    give(status, "status", [&] { return is_complete(event) ? ACL_EVENT_STATUS_COMPLETE : ACL_EVENT_STATUS_NOT_READY; });
  });
}

aclError aclrtQueryEventWaitStatus(aclrtEvent event, aclrtEventWaitStatus* status) {
  return guarded("aclrtQueryEventWaitStatus", [&] {
    give(status, "status",
         [&] { return is_complete(event) ? ACL_EVENT_WAIT_STATUS_COMPLETE : ACL_EVENT_WAIT_STATUS_NOT_READY; });
  });
}

aclError aclrtSynchronizeEvent(aclrtEvent event) {
  return guarded("aclrtSynchronizeEvent", [&] { synchronize(event, Deadline::never()); });
}

aclError aclrtSynchronizeEventWithTimeout(aclrtEvent event, int32_t timeout_ms) {
  return guarded("aclrtSynchronizeEventWithTimeout", [&] { synchronize(event, Deadline::after_ms(timeout_ms)); });
}

aclError aclrtEventElapsedTime(float* elapsed_ms, aclrtEvent start, aclrtEvent end) {
  return guarded("aclrtEventElapsedTime", [&] {
    require_address(elapsed_ms, "ms");
    const int64_t elapsed_ns = Event::from_handle(end)->timestamp_ns() - Event::from_handle(start)->timestamp_ns();
    *elapsed_ms = static_cast<float>(static_cast<double>(elapsed_ns) * 1e-6);
  });
}

aclError aclrtEventGetTimestamp(aclrtEvent event, uint64_t* timestamp_us) {
  return guarded("aclrtEventGetTimestamp", [&] {
    give(timestamp_us, "timestamp",
         [&] { return static_cast<uint64_t>(Event::from_handle(event)->timestamp_ns() / 1000); });
  });
}

aclError aclrtValueWrite(void* address, uint64_t value, uint32_t flag, aclrtStream stream) {
  return guarded("aclrtValueWrite", [&] {
    check_device_range(address, sizeof value, "the address");
    write_value(Stream::from_handle(stream), address, value);
  });
}

aclError aclrtValueWait(void* address, uint64_t value, uint32_t condition, aclrtStream stream) {
  return guarded("aclrtValueWait", [&] {
    check_device_range(address, sizeof value, "the address");
    wait_for_value(Stream::from_handle(stream), address, value, condition);
  });
}

// What graphs hold; events outside of them are few and come and go.
aclError aclrtGetEventAvailNum(uint32_t* count) {
  return guarded("aclrtGetEventAvailNum", [&] {
    give(count, "eventCount", [] {
      return static_cast<uint32_t>(std::max(0, chip().max_events - current_device().reserved().events));
    });
  });
}

}  // extern "C"
