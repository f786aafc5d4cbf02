// A captured graph: the tasks of all its streams, replayed on one stream.
//
// Nodes run in the order in which they were captured, which satisfies every dependency between the graph's streams
// (a wait is always captured after its record). Waits for something outside the graph block there.
#pragma once

#include <acl/acl.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "core/launch_counts.h"
#include "core/task.h"
#include "runtime/device.h"
#include "runtime/stream.h"

namespace emulator {

class Graph;

// Nodes that aclmdlRICaptureTaskUpdateBegin/End may give new arguments.
struct TaskGroup {
  std::vector<size_t> nodes;
};

class Graph : public std::enable_shared_from_this<Graph> {
 public:
  explicit Graph(Device& device);
  ~Graph();

  // Throws Failure(107000), or 107026 for a graph whose capture has not ended, unless that is asked for.
  static std::shared_ptr<Graph> from_handle(aclmdlRI handle, bool may_be_unfinished = false);
  aclmdlRI handle() { return this; }
  static void publish(const std::shared_ptr<Graph>& graph);  // the handle becomes valid
  static void destroy(aclmdlRI handle);                      // throws as from_handle()
  static void discard(Graph& graph);                         // of a capture that failed
  static void discard_all(const Device& device);             // of a device that is reset: its memory goes too
  void finish() { is_finished_ = true; }                     // from now on its nodes are those it has

  uint32_t id() const { return id_; }
  Device& device() const { return device_; }

  // `after`: nodes of other lanes that must have finished, besides those before it in its own lane.
  size_t add_node(TaskPtr task, int lane, bool updatable, std::vector<size_t> after);
  TaskGroup* add_group();
  // The group behind a handle, and its graph; throws Failure(107000) once the graph is destroyed.
  static std::pair<TaskGroup*, std::shared_ptr<Graph>> from_group_handle(aclrtTaskGrp handle);
  void hold(const Device::Budget& budget);  // released with the graph
  size_t lane_count() const { return lanes_; }
  void set_lane_count(size_t lanes) { lanes_ = lanes; }

  void replay(Stream& stream);  // on the stream's thread
  void replace(const TaskGroup& group, const std::vector<TaskPtr>& tasks);
  const char* task_name(size_t node) const;

  size_t node_count() const { return nodes_.size(); }
  void count_replay() { ++replays_; }
  static std::map<std::string, uint64_t> replayed_launches();  // of all graphs, destroyed ones included
  static void reset_replay_counts();

  std::string describe() const;  // JSON: one object a node

 private:
  struct Node {
    TaskPtr task;
    int lane;
    bool updatable;
    std::vector<size_t> after;
  };

  void run_node(const Node& node, Stream& stream);

  Device& device_;
  const uint32_t id_;
  std::vector<Node> nodes_;
  size_t lanes_ = 1;
  std::vector<std::unique_ptr<TaskGroup>> groups_;
  mutable std::mutex update_mutex_;
  LaunchCounts launch_counts_;
  std::atomic<uint64_t> replays_{0};
  std::atomic<bool> is_finished_{false};
  Device::Budget budget_;
};

// The stream's tasks until end() replace those of a group, on the device, when the stream comes to it.
class GroupUpdate : public TaskSink {
 public:
  static void begin(Stream& stream, aclrtTaskGrp handle);
  static void end(Stream& stream);
  static void abandon(Stream& stream);  // of a stream that goes away
  void accept(Stream& stream, TaskPtr task) override { tasks_.push_back(std::move(task)); }

 private:
  explicit GroupUpdate(TaskGroup* group, std::shared_ptr<Graph> graph) : group_(group), graph_(std::move(graph)) {}
  void check() const;
  TaskGroup* group_;
  std::shared_ptr<Graph> graph_;
  std::vector<TaskPtr> tasks_;
};

}  // namespace emulator
