#include "runtime/capture.h"

#include <acl/error_codes/rt_error_codes.h>

#include <algorithm>
#include <utility>

#include "core/errors.h"

namespace emulator {
namespace {

thread_local aclmdlRICaptureMode t_mode = ACL_MODEL_RI_CAPTURE_MODE_GLOBAL;

// Numbers of threads are not given anew, unlike their ids.
uint64_t this_thread() {
  static std::atomic<uint64_t> threads{0};
  thread_local const uint64_t number = ++threads;
  return number;
}

// The captures under way. Their streams refer to them by plain pointers, which are compared with these, not followed.
struct Active {
  std::mutex mutex;
  std::vector<std::shared_ptr<Capture>> captures;
  std::atomic<int> count{0};  // mostly 0, and then nobody needs the lock
};

Active& active() {
  static auto& instance = *new Active;
  return instance;
}

}  // namespace

// A thread may be allowed what the mode of a capture forbids (aclmdlRICaptureThreadExchangeMode).
bool Capture::forbids_blocking(aclmdlRICaptureMode thread_mode) const {
  if (thread_mode == ACL_MODEL_RI_CAPTURE_MODE_RELAXED || mode_ == ACL_MODEL_RI_CAPTURE_MODE_RELAXED) return false;
  if (thread_ == this_thread()) return true;
  return thread_mode == ACL_MODEL_RI_CAPTURE_MODE_GLOBAL && mode_ == ACL_MODEL_RI_CAPTURE_MODE_GLOBAL;
}

void refuse_during_capture() {
  auto& captures = active();
  if (captures.count.load() == 0) return;
  std::lock_guard lock(captures.mutex);
  for (const auto& capture : captures.captures) {
    if (capture->forbids_blocking(t_mode)) {
      fail(ACL_ERROR_RT_CAPTURE_MODE_NOT_SUPPORT, "not allowed while a graph is captured.");
    }
  }
}

void refuse_on_captured_stream(const Stream& stream) {
  if (Capture::of(stream) != nullptr) {
    fail(ACL_ERROR_RT_STREAM_CAPTURED, "not allowed: stream %d is being captured.", stream.id());
  }
}

void refuse_while_device_captures(const Device& device) {
  if (active().count.load() == 0) return;
  for (const Stream* stream : device.streams()) refuse_on_captured_stream(*stream);
}

aclmdlRICaptureMode exchange_thread_capture_mode(aclmdlRICaptureMode mode) {
  return std::exchange(t_mode, mode);
}

Capture::Capture(Stream& origin, aclmdlRICaptureMode mode)
    : graph_(std::make_shared<Graph>(origin.device())),
      origin_(origin),
      mode_(mode),
      thread_(this_thread()) {}

std::shared_ptr<Capture> Capture::begin(Stream& origin, aclmdlRICaptureMode mode) {
  refuse_on_captured_stream(origin);
  if (&origin == &origin.device().default_stream()) {
    fail(ACL_ERROR_RT_FEATURE_NOT_SUPPORT, "The default stream cannot be captured.");
  }
  auto capture = std::make_shared<Capture>(origin, mode);
  auto& captures = active();
  {
    std::lock_guard lock(captures.mutex);  // before it joins: Capture::of() finds the captures of streams here
    captures.captures.push_back(capture);
    ++captures.count;
  }
  Graph::publish(capture->graph_);  // aclmdlRICaptureGetInfo hands the graph out while it is captured
  try {
    capture->join(origin);
  } catch (...) {
    if (capture->close()) Graph::discard(*capture->graph_);
    throw;
  }
  return capture;
}

std::shared_ptr<Capture> Capture::of(const Stream& stream) {
  auto& captures = active();
  if (captures.count.load() == 0) return nullptr;
  std::lock_guard lock(captures.mutex);
  const TaskSink* sink = stream.sink();
  for (const auto& capture : captures.captures) {
    if (capture.get() == sink) return capture;
  }
  return nullptr;
}

bool Capture::has_stream_on(const Device& device) const {
  std::lock_guard lock(mutex_);
  return std::any_of(lanes_.begin(), lanes_.end(),
                     [&](const Lane& lane) { return &lane.stream->device() == &device; });
}

void Capture::abandon(const Device& device) {
  std::vector<std::shared_ptr<Capture>> captures;
  {
    std::lock_guard lock(active().mutex);
    captures = active().captures;
  }
  for (const auto& capture : captures) {
    if (capture->has_stream_on(device) && capture->close()) Graph::discard(*capture->graph_);
  }
}

void Capture::check_open() const {
  if (is_closed_.load()) fail(ACL_ERROR_RT_STREAM_NOT_CAPTURED, "The capture ended meanwhile.");
}

void Capture::join(Stream& stream) {
  graph_->hold({.streams = 1});
  {
    std::lock_guard lock(mutex_);
    check_open();
    lanes_.push_back({.stream = &stream});
    graph_->set_lane_count(lanes_.size());
  }
  // After the lane exists, and without mutex_: accept() takes it under the stream's lock.
  if (!stream.redirect(nullptr, this)) {
    invalidate();
    fail(ACL_ERROR_STREAM_CAPTURE_CONFLICT, "Stream %d became part of another capture or task update.", stream.id());
  }
  if (is_closed_.load()) {  // close() may have been there before redirect()
    stream.redirect(this, nullptr);
    check_open();
  }
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
  check_open();
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

bool Capture::close() {
  if (is_closed_.exchange(true)) return false;
  std::vector<Stream*> streams;
  {
    std::lock_guard lock(mutex_);
    for (const auto& lane : lanes_) streams.push_back(lane.stream);
  }
  for (Stream* stream : streams) stream->redirect(this, nullptr);
  auto& captures = active();
  std::lock_guard lock(captures.mutex);
  std::erase_if(captures.captures, [this](const auto& capture) { return capture.get() == this; });
  --captures.count;
  return true;
}

std::shared_ptr<Graph> Capture::end(Stream& stream) {
  if (&stream != &origin_) {
    fail(ACL_ERROR_RT_STREAM_CAPTURE_UNMATCHED, "The capture was begun on stream %d, not on stream %d.", origin_.id(),
         stream.id());
  }
  if (mode_ != ACL_MODEL_RI_CAPTURE_MODE_RELAXED && thread_ != this_thread()) {
    fail(ACL_ERROR_RT_STREAM_CAPTURE_WRONG_THREAD, "The capture must end on the thread that began it.");
  }
  const auto keep_alive = shared_from_this();
  if (!close()) check_open();
  try {
    if (invalidated_) {
      fail(ACL_ERROR_RT_STREAM_CAPTURE_INVALIDATED, "An operation during the capture was not allowed; see its error.");
    }
    check_joined();
  } catch (...) {
    Graph::discard(*graph_);
    throw;
  }
  graph_->finish();
  return graph_;
}

}  // namespace emulator
