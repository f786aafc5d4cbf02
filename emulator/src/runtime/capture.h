// Recording streams into a graph: which streams take part, how their events order them, and what is illegal meanwhile.
#pragma once

#include <acl/acl.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "runtime/graph.h"
#include "runtime/stream.h"

namespace emulator {

class Capture;

// By lane: how many of its nodes are ordered before some point of the capture.
using LaneProgress = std::vector<size_t>;

// Where in a capture an event was recorded.
struct CaptureMark {
  std::weak_ptr<Capture> capture;
  LaneProgress progress;
};

class Capture : public TaskSink, public std::enable_shared_from_this<Capture> {
 public:
  static std::shared_ptr<Capture> begin(Stream& origin, aclmdlRICaptureMode mode);
  static std::shared_ptr<Capture> of(const Stream& stream);  // null when the stream is not captured
  static void abandon(const Device& device);                 // ends those with a stream on the device; their graphs go
  std::shared_ptr<Graph> end(Stream& stream);                // throws Failure, and the graph is gone

  void accept(Stream& stream, TaskPtr task) override;

  CaptureMark record_event(Stream& stream);
  void wait_event(Stream& stream, const CaptureMark& mark);  // pulls the stream into the capture

  void begin_group(Stream& stream);
  TaskGroup* end_group(Stream& stream);

  Graph& graph() const { return *graph_; }
  bool is_invalidated() const { return invalidated_; }
  void invalidate() { invalidated_ = true; }
  // Whether it forbids the calling thread blocking calls, if that has the given mode (of exchange_thread_capture_mode).
  bool forbids_blocking(aclmdlRICaptureMode thread_mode) const;

  Capture(Stream& origin, aclmdlRICaptureMode mode);

 private:
  struct Lane {
    Stream* stream;
    std::vector<size_t> nodes{};         // of the graph, in the order of the lane
    LaneProgress progress{};
    std::vector<size_t> waits_for{};     // nodes that the lane's next one comes after
    TaskGroup* open_group = nullptr;
  };

  size_t lane_of(const Stream& stream) const;
  void join(Stream& stream);
  void check_open() const;
  void check_joined() const;
  bool has_stream_on(const Device& device) const;
  bool close();  // false if another thread was first

  std::shared_ptr<Graph> graph_;
  Stream& origin_;
  const aclmdlRICaptureMode mode_;
  const uint64_t thread_;
  mutable std::mutex mutex_;
  std::vector<Lane> lanes_;
  std::atomic<bool> invalidated_{false};
  std::atomic<bool> is_closed_{false};  // its streams have been given back: nothing may join
};

// Throws Failure(107030) if a capture is under way that forbids the calling thread blocking calls.
void refuse_during_capture();
// Throws Failure(107027) if the stream is captured.
void refuse_on_captured_stream(const Stream& stream);
// Throws Failure(107027) if any stream of the device is captured.
void refuse_while_device_captures(const Device& device);

aclmdlRICaptureMode exchange_thread_capture_mode(aclmdlRICaptureMode mode);

}  // namespace emulator
