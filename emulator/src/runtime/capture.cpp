#include "runtime/capture.h"

#include <acl/error_codes/rt_error_codes.h>

#include <algorithm>
#include <utility>

#include "core/errors.h"

namespace emulator {
namespace {

// Captures under way, by mode; a thread may be allowed what the mode forbids (aclmdlRICaptureThreadExchangeMode).
std::atomic<int> g_captures{0};
std::atomic<int> g_global_captures{0};
thread_local int t_local_captures = 0;   // begun by this thread in mode GLOBAL or THREAD_LOCAL
thread_local aclmdlRICaptureMode t_mode = ACL_MODEL_RI_CAPTURE_MODE_GLOBAL;

void count_capture(aclmdlRICaptureMode mode, int change) {
  g_captures += change;
  if (mode == ACL_MODEL_RI_CAPTURE_MODE_GLOBAL) g_global_captures += change;
  if (mode != ACL_MODEL_RI_CAPTURE_MODE_RELAXED) t_local_captures += change;
}

// Owns the captures under way: their streams refer to them by plain pointers.
std::mutex g_active_mutex;

std::vector<std::shared_ptr<Capture>>& active() {
  static auto& captures = *new std::vector<std::shared_ptr<Capture>>;
  return captures;
}

}  // namespace

void refuse_during_capture() {
  if (g_captures.load(std::memory_order_relaxed) == 0 || t_mode == ACL_MODEL_RI_CAPTURE_MODE_RELAXED) return;
  const bool forbidden =
      t_mode == ACL_MODEL_RI_CAPTURE_MODE_GLOBAL ? g_global_captures > 0 || t_local_captures > 0 : t_local_captures > 0;
  if (forbidden) {
    fail(ACL_ERROR_RT_CAPTURE_MODE_NOT_SUPPORT, "not allowed while a graph is captured.");
  }
}

void refuse_on_captured_stream(const Stream& stream) {
  if (Capture::of(stream) != nullptr) {
    fail(ACL_ERROR_RT_STREAM_CAPTURED, "not allowed: stream %d is being captured.", stream.id());
  }
}

void refuse_while_device_captures(const Device& device) {
  if (g_captures.load(std::memory_order_relaxed) == 0) return;
  for (const Stream* stream : device.streams()) refuse_on_captured_stream(*stream);
}

aclmdlRICaptureMode exchange_thread_capture_mode(aclmdlRICaptureMode mode) {
  return std::exchange(t_mode, mode);
}

Capture::Capture(Stream& origin, aclmdlRICaptureMode mode)
    : graph_(std::make_shared<Graph>(origin.device())),
      origin_(origin),
      mode_(mode),
      thread_(std::this_thread::get_id()) {}

std::shared_ptr<Capture> Capture::begin(Stream& origin, aclmdlRICaptureMode mode) {
  refuse_on_captured_stream(origin);
  if (&origin == &origin.device().default_stream()) {
    fail(ACL_ERROR_RT_FEATURE_NOT_SUPPORT, "The default stream cannot be captured.");
  }
  auto capture = std::make_shared<Capture>(origin, mode);
  capture->join(origin);
  Graph::publish(capture->graph_);  // aclmdlRICaptureGetInfo hands the graph out while it is captured
  count_capture(mode, +1);
  std::lock_guard lock(g_active_mutex);
  active().push_back(capture);
  return capture;
}

std::shared_ptr<Capture> Capture::of(const Stream& stream) {
  if (g_captures.load(std::memory_order_relaxed) == 0) return nullptr;
  auto* capture = dynamic_cast<Capture*>(stream.sink());
  return capture == nullptr ? nullptr : capture->shared_from_this();
}

void Capture::join(Stream& stream) {
  graph_->hold({.streams = 1});
  {
    std::lock_guard lock(mutex_);
    lanes_.push_back({.stream = &stream});
    graph_->set_lane_count(lanes_.size());
  }
  stream.redirect(this);  // after the lane exists, and without mutex_: accept() takes it under the stream's lock
}

size_t Capture::lane_of(const Stream& stream) const {
  for (size_t lane = 0; lane < lanes_.size(); ++lane) {
    if (lanes_[lane].stream == &stream) return lane;
  }
  fail(ACL_ERROR_RT_STREAM_NOT_CAPTURED, "Stream %d is not part of this capture.", stream.id());
}

void Capture::accept(Stream& stream, TaskPtr task) {
  std::lock_guard lock(mutex_);
  const size_t index = lane_of(stream);
  Lane& lane = lanes_[index];
  const size_t node = graph_->add_node(std::move(task), static_cast<int>(index), lane.open_group != nullptr,
                                       std::exchange(lane.waits_for, {}));
  if (lane.open_group != nullptr) lane.open_group->nodes.push_back(node);
  lane.nodes.push_back(node);
}

// An event recorded in a capture belongs to the graph for good. torch_npu records three around a collective, with which 64
// layers at tensor-parallel size above 1 get two graphs on 1,024 events: as many as vllm-ascend documents for 310P.
CaptureMark Capture::record_event(Stream& stream) {
  graph_->hold({.events = 1});
  std::lock_guard lock(mutex_);
  const size_t index = lane_of(stream);
  LaneProgress progress = lanes_[index].progress;
  progress.resize(std::max(progress.size(), index + 1));
  progress[index] = lanes_[index].nodes.size();
  return {.capture = weak_from_this(), .progress = std::move(progress)};
}

void Capture::wait_event(Stream& stream, const CaptureMark& mark) {
  const auto other = of(stream);
  if (other != nullptr && other.get() != this) {
    fail(ACL_ERROR_STREAM_CAPTURE_CONFLICT, "Stream %d is captured into another graph than the event it waits for.",
         stream.id());
  }
  if (other == nullptr) {
    if (&stream == &stream.device().default_stream()) {
      fail(ACL_ERROR_RT_STREAM_CAPTURE_IMPLICIT, "The default stream cannot become part of a capture.");
    }
    join(stream);
  }
  std::lock_guard lock(mutex_);
  const size_t index = lane_of(stream);
  Lane& lane = lanes_[index];
  lane.progress.resize(std::max(lane.progress.size(), mark.progress.size()));
  for (size_t i = 0; i < mark.progress.size(); ++i) {
    if (mark.progress[i] <= lane.progress[i]) continue;
    lane.progress[i] = mark.progress[i];
    if (i != index) lane.waits_for.push_back(lanes_[i].nodes[mark.progress[i] - 1]);
  }
}

void Capture::begin_group(Stream& stream) {
  std::lock_guard lock(mutex_);
  Lane& lane = lanes_[lane_of(stream)];
  if (lane.open_group != nullptr) {
    fail(ACL_ERROR_STREAM_TASK_GROUP_STATUS, "Stream %d already has an open task group.", stream.id());
  }
  lane.open_group = graph_->add_group();
}

TaskGroup* Capture::end_group(Stream& stream) {
  std::lock_guard lock(mutex_);
  Lane& lane = lanes_[lane_of(stream)];
  if (lane.open_group == nullptr) {
    fail(ACL_ERROR_STREAM_TASK_GROUP_STATUS, "Stream %d has no open task group.", stream.id());
  }
  return std::exchange(lane.open_group, nullptr);
}

// Every stream that was pulled in must have come back: the origin's end must mean the end of all.
void Capture::check_joined() const {
  const LaneProgress& seen = lanes_[0].progress;
  for (size_t i = 0; i < lanes_.size(); ++i) {
    if (lanes_[i].open_group != nullptr) {
      fail(ACL_ERROR_STREAM_TASK_GROUP_STATUS, "A task group of stream %d was not ended.", lanes_[i].stream->id());
    }
    if (i > 0 && (i < seen.size() ? seen[i] : 0) < lanes_[i].nodes.size()) {
      fail(ACL_ERROR_RT_STREAM_UNJOINED,
           "Stream %d was pulled into the capture of stream %d and not joined back: record an event on it and let "
           "stream %d wait for that.",
           lanes_[i].stream->id(), origin_.id(), origin_.id());
    }
  }
}

void Capture::close() {
  for (const auto& lane : lanes_) lane.stream->redirect(nullptr);
  count_capture(mode_, -1);
  std::lock_guard lock(g_active_mutex);
  std::erase_if(active(), [this](const auto& capture) { return capture.get() == this; });
}

std::shared_ptr<Graph> Capture::end(Stream& stream) {
  if (&stream != &origin_) {
    fail(ACL_ERROR_RT_STREAM_CAPTURE_UNMATCHED, "The capture was begun on stream %d, not on stream %d.", origin_.id(),
         stream.id());
  }
  if (mode_ != ACL_MODEL_RI_CAPTURE_MODE_RELAXED && thread_ != std::this_thread::get_id()) {
    fail(ACL_ERROR_RT_STREAM_CAPTURE_WRONG_THREAD, "The capture must end on the thread that began it.");
  }
  const auto keep_alive = shared_from_this();
  close();
  try {
    if (invalidated_) {
      fail(ACL_ERROR_RT_STREAM_CAPTURE_INVALIDATED, "An operation during the capture was not allowed; see its error.");
    }
    check_joined();
  } catch (...) {
    Graph::destroy(graph_->handle());
    throw;
  }
  return graph_;
}

}  // namespace emulator
