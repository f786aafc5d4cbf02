// Graph capture and replay ("model running instances", aclmdlRI).
#include <acl/acl.h>
#include <acl/error_codes/rt_error_codes.h>

#include <fstream>
#include <iostream>

#include "core/errors.h"
#include "core/stats.h"
#include "runtime/capture.h"
#include "runtime/graph.h"
#include "runtime/stream.h"

using namespace emulator;

namespace {

class ReplayTask : public ControlTask {
 public:
  explicit ReplayTask(std::shared_ptr<Graph> graph) : graph_(std::move(graph)) {}
  const char* name() const override { return "GraphReplay"; }
  void run() override { graph_->replay(Stream::running()); }

 private:
  std::shared_ptr<Graph> graph_;
};

aclmdlRICaptureMode checked_mode(int mode) {
  if (mode < ACL_MODEL_RI_CAPTURE_MODE_GLOBAL || mode > ACL_MODEL_RI_CAPTURE_MODE_RELAXED) {
    fail(kInvalidParam, "capture mode %d is unknown.", mode);
  }
  return static_cast<aclmdlRICaptureMode>(mode);
}

std::shared_ptr<Capture> capture_of(Stream& stream) {
  auto capture = Capture::of(stream);
  if (capture == nullptr) fail(ACL_ERROR_RT_STREAM_NOT_CAPTURED, "stream %d is not being captured.", stream.id());
  return capture;
}

void replay(aclmdlRI handle, Stream& stream) {
  auto graph = Graph::from_handle(handle);
  refuse_on_captured_stream(stream);
  count(stats().graph_replays);
  graph->count_replay();
  stream.append(std::make_shared<ReplayTask>(std::move(graph)));
}

}  // namespace

extern "C" {

aclError aclmdlRICaptureBegin(aclrtStream handle, aclmdlRICaptureMode mode) {
  return guarded("aclmdlRICaptureBegin", [&] {
    Capture::begin(Stream::from_handle(handle), checked_mode(mode));
  });
}

aclError aclmdlRICaptureGetInfo(aclrtStream handle, aclmdlRICaptureStatus* status, aclmdlRI* model) {
  return guarded("aclmdlRICaptureGetInfo", [&] {
    const auto capture = Capture::of(Stream::from_handle(handle));
    if (status != nullptr) {
      *status = capture == nullptr             ? ACL_MODEL_RI_CAPTURE_STATUS_NONE
                : capture->is_invalidated() ? ACL_MODEL_RI_CAPTURE_STATUS_INVALIDATED
                                            : ACL_MODEL_RI_CAPTURE_STATUS_ACTIVE;
    }
    if (model != nullptr) *model = capture == nullptr ? nullptr : capture->graph().handle();
  });
}

aclError aclmdlRICaptureEnd(aclrtStream handle, aclmdlRI* model) {
  return guarded("aclmdlRICaptureEnd", [&] {
    Stream& stream = Stream::from_handle(handle);
    required(model, "modelRI") = nullptr;
    *model = capture_of(stream)->end(stream)->handle();
    count(stats().graph_captures);
  });
}

aclError aclmdlRICaptureThreadExchangeMode(aclmdlRICaptureMode* mode) {
  return guarded("aclmdlRICaptureThreadExchangeMode", [&] {
    give(mode, "mode", [&] { return exchange_thread_capture_mode(checked_mode(*mode)); });
  });
}

aclError aclmdlRIExecuteAsync(aclmdlRI model, aclrtStream stream) {
  return guarded("aclmdlRIExecuteAsync", [&] { replay(model, Stream::from_handle(stream)); });
}

aclError aclmdlRIExecute(aclmdlRI model, int32_t timeout_ms) {
  return guarded("aclmdlRIExecute", [&] {
    if (timeout_ms < -1) fail(kInvalidParam, "timeout must be -1 or more, not %d.", timeout_ms);
    Stream& stream = Stream::from_handle(nullptr);
    replay(model, stream);
    count_sync(Sync::kStream);
    stream.synchronize(Deadline::after_ms(timeout_ms));
  });
}

aclError aclmdlRIDestroy(aclmdlRI model) {
  return guarded("aclmdlRIDestroy", [&] { Graph::destroy(model); });
}

aclError aclmdlRIGetId(aclmdlRI model, uint32_t* id) {
  return guarded("aclmdlRIGetId", [&] {
    give(id, "modelRIId", [&] { return Graph::from_handle(model, /*may_be_unfinished=*/true)->id(); });
  });
}

aclError aclmdlRICaptureTaskGrpBegin(aclrtStream handle) {
  return guarded("aclmdlRICaptureTaskGrpBegin", [&] {
    Stream& stream = Stream::from_handle(handle);
    capture_of(stream)->begin_group(stream);
  });
}

aclError aclmdlRICaptureTaskGrpEnd(aclrtStream handle, aclrtTaskGrp* group) {
  return guarded("aclmdlRICaptureTaskGrpEnd", [&] {
    Stream& stream = Stream::from_handle(handle);
    give(group, "handle", [&] { return capture_of(stream)->end_group(stream); });
  });
}

aclError aclmdlRICaptureTaskUpdateBegin(aclrtStream handle, aclrtTaskGrp group) {
  return guarded("aclmdlRICaptureTaskUpdateBegin",
                 [&] { GroupUpdate::begin(Stream::from_handle(handle), group); });
}

aclError aclmdlRICaptureTaskUpdateEnd(aclrtStream handle) {
  return guarded("aclmdlRICaptureTaskUpdateEnd", [&] {
    count(stats().graph_updates);
    GroupUpdate::end(Stream::from_handle(handle));
  });
}

aclError aclmdlRIDebugPrint(aclmdlRI model) {
  return guarded("aclmdlRIDebugPrint", [&] { std::cout << Graph::from_handle(model)->describe(); });
}

aclError aclmdlRIDebugJsonPrint(aclmdlRI model, const char* path, uint32_t flags) {
  return guarded("aclmdlRIDebugJsonPrint", [&] {
    require_address(path, "path");
    std::ofstream file(path);
    if (!(file << Graph::from_handle(model)->describe())) {
      fail(ACL_ERROR_RT_FILE_OPEN, "cannot write \"%s\".", path);
    }
  });
}

}  // extern "C"
