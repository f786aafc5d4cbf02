// Streams, and host functions in stream order.
#include <acl/acl.h>
#include <acl/error_codes/rt_error_codes.h>

#include "core/errors.h"
#include "core/stats.h"
#include "runtime/capture.h"
#include "runtime/device.h"
#include "runtime/graph.h"
#include "runtime/host_callbacks.h"
#include "runtime/stream.h"

using namespace emulator;

namespace {

void synchronize(aclrtStream handle, const Deadline& deadline) {
  Stream& stream = Stream::from_handle(handle);
  count_sync(Sync::kStream);
  refuse_on_captured_stream(stream);
  stream.synchronize(deadline);
}

void destroy(aclrtStream handle, bool force) {
  require_address(handle, "stream");
  Stream& stream = Stream::from_handle(handle);
  refuse_on_captured_stream(stream);
  GroupUpdate::abandon(stream);
  stream.destroy(force);
}

class HostFunctionTask : public Task {
 public:
  HostFunctionTask(aclrtHostFunc function, void* arguments) : function_(function), arguments_(arguments) {}
  const char* name() const override { return "HostFunc"; }
  TaskKind kind() const override { return TaskKind::kHostCallback; }
  void run() override {
    if (Clock::models_time()) Clock::sleep_until(Clock::timeline().end_ns());
    {
      const HostCode host_code;
      function_(arguments_);
    }
    if (Clock::models_time()) Clock::timeline().reach(Clock::now_ns());
  }
  void run_without_compute() override { run(); }

 private:
  aclrtHostFunc function_;
  void* arguments_;
};

}  // namespace

extern "C" {

aclError aclrtCreateStream(aclrtStream* stream) {
  return guarded("aclrtCreateStream", [&] {
    give(stream, "stream", [&] { return current_device().create_stream(0, 0)->handle(); });
  });
}

aclError aclrtCreateStreamWithConfig(aclrtStream* stream, uint32_t priority, uint32_t flags) {
  return guarded("aclrtCreateStreamWithConfig", [&] {
    give(stream, "stream", [&] { return current_device().create_stream(priority, flags)->handle(); });
  });
}

aclError aclrtDestroyStream(aclrtStream handle) {
  return guarded("aclrtDestroyStream", [&] { destroy(handle, /*force=*/false); });
}

aclError aclrtDestroyStreamForce(aclrtStream handle) {
  return guarded("aclrtDestroyStreamForce", [&] { destroy(handle, /*force=*/true); });
}

aclError aclrtSynchronizeStream(aclrtStream stream) {
  return guarded("aclrtSynchronizeStream",
                 [&] { synchronize(stream, Deadline::never()); });
}

aclError aclrtSynchronizeStreamWithTimeout(aclrtStream stream, int32_t timeout_ms) {
  return guarded("aclrtSynchronizeStreamWithTimeout", [&] {
    synchronize(stream, Deadline::after_ms(timeout_ms));
  });
}

aclError aclrtStreamQuery(aclrtStream handle, aclrtStreamStatus* status) {
  return guarded("aclrtStreamQuery", [&] {
    required(status, "status");
    Stream& stream = Stream::from_handle(handle);
    refuse_on_captured_stream(stream);
    stream.device().throw_if_failed();
    *status = stream.is_idle() ? ACL_STREAM_STATUS_COMPLETE : ACL_STREAM_STATUS_NOT_READY;
  });
}

aclError aclrtStreamGetId(aclrtStream stream, int32_t* id) {
  return guarded("aclrtStreamGetId", [&] { give(id, "streamId", [&] { return Stream::from_handle(stream).id(); }); });
}

aclError aclrtStreamGetPriority(aclrtStream stream, uint32_t* priority) {
  return guarded("aclrtStreamGetPriority", [&] {
    give(priority, "priority", [&] { return Stream::from_handle(stream).priority(); });
  });
}

aclError aclrtStreamGetFlags(aclrtStream stream, uint32_t* flags) {
  return guarded("aclrtStreamGetFlags", [&] {
    give(flags, "flags", [&] { return Stream::from_handle(stream).flags(); });
  });
}

aclError aclrtDeviceGetStreamPriorityRange(int32_t* least, int32_t* greatest) {
  if (least != nullptr) *least = 7;
  if (greatest != nullptr) *greatest = 0;
  return ACL_SUCCESS;
}

aclError aclrtCtxGetCurrentDefaultStream(aclrtStream* stream) {
  return guarded("aclrtCtxGetCurrentDefaultStream",
                 [&] { give(stream, "stream", [&] { return current_device().default_stream().handle(); }); });
}

aclError aclrtGetStreamAvailableNum(uint32_t* count) {
  return guarded("aclrtGetStreamAvailableNum", [&] {
    const Device& device = current_device();
    const int held = static_cast<int>(device.streams().size()) + device.reserved().streams;
    give(count, "streamCount", [&] { return static_cast<uint32_t>(std::max(0, chip().max_streams - held)); });
  });
}

aclError aclrtLaunchHostFunc(aclrtStream stream, aclrtHostFunc function, void* arguments) {
  return guarded("aclrtLaunchHostFunc", [&] {
    require_address(reinterpret_cast<const void*>(function), "fn");
    count(stats().host_callbacks);
    Stream::from_handle(stream).append(std::make_shared<HostFunctionTask>(function, arguments));
  });
}

aclError aclrtLaunchCallback(aclrtCallback function, void* data, aclrtCallbackBlockType block, aclrtStream stream) {
  return guarded("aclrtLaunchCallback", [&] {
    require_address(reinterpret_cast<const void*>(function), "fn");
    count(stats().host_callbacks);
    launch_callback(Stream::from_handle(stream), function, data, block == ACL_CALLBACK_BLOCK);
  });
}

aclError aclrtSubscribeReport(uint64_t thread, aclrtStream stream) {
  return guarded("aclrtSubscribeReport", [&] { subscribe_callbacks(thread, Stream::from_handle(stream)); });
}

aclError aclrtUnSubscribeReport(uint64_t thread, aclrtStream stream) {
  return guarded("aclrtUnSubscribeReport", [&] { unsubscribe_callbacks(thread, Stream::from_handle(stream)); });
}

aclError aclrtProcessReport(int32_t timeout_ms) {
  return guarded("aclrtProcessReport", [&] { process_one_callback(Deadline::after_ms(timeout_ms)); });
}

}  // extern "C"
