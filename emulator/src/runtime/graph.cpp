#include "runtime/graph.h"

#include <acl/error_codes/rt_error_codes.h>

#include <algorithm>
#include <unordered_map>

#include "core/clock.h"
#include "core/errors.h"
#include "runtime/capture.h"
#include "runtime/stream.h"

namespace emulator {
namespace {

struct Registry {
  std::mutex mutex;
  std::unordered_map<aclmdlRI, std::shared_ptr<Graph>> graphs;
  std::unordered_map<aclrtTaskGrp, Graph*> groups;
  std::map<std::string, uint64_t> retired_launches;  // replayed by graphs that were destroyed
};

Registry& registry() {
  static auto& instance = *new Registry;
  return instance;
}

// Updates under way. Under a lock of their own: it is held while a stream's is taken, and under that captures take the
// registry's.
struct Updates {
  std::mutex mutex;
  std::map<const Stream*, std::unique_ptr<GroupUpdate>> by_stream;
};

Updates& updates() {
  static auto& instance = *new Updates;
  return instance;
}

uint32_t next_graph_id() {
  static std::atomic<uint32_t> next{0};
  return next++;
}

class UpdateTask : public ControlTask {
 public:
  UpdateTask(std::shared_ptr<Graph> graph, TaskGroup* group, std::vector<TaskPtr> tasks)
      : graph_(std::move(graph)), group_(group), tasks_(std::move(tasks)) {}
  const char* name() const override { return "GraphTaskUpdate"; }
  void run() override { graph_->replace(*group_, tasks_); }

 private:
  std::shared_ptr<Graph> graph_;
  TaskGroup* group_;
  std::vector<TaskPtr> tasks_;
};

}  // namespace

Graph::Graph(Device& device) : device_(device), id_(next_graph_id()) {}

Graph::~Graph() {
  device_.release(budget_);
  auto& table = registry();
  std::lock_guard lock(table.mutex);
  for (const auto& group : groups_) table.groups.erase(group.get());
  launch_counts_.merge_into(table.retired_launches, replays_);
}

std::map<std::string, uint64_t> Graph::replayed_launches() {
  auto& table = registry();
  std::lock_guard lock(table.mutex);
  auto counts = table.retired_launches;
  for (const auto& [handle, graph] : table.graphs) {
    if (graph->replays_ > 0) graph->launch_counts_.merge_into(counts, graph->replays_);
  }
  return counts;
}

void Graph::reset_replay_counts() {
  auto& table = registry();
  std::lock_guard lock(table.mutex);
  table.retired_launches.clear();
  for (const auto& [handle, graph] : table.graphs) graph->replays_ = 0;
}

void Graph::publish(const std::shared_ptr<Graph>& graph) {
  auto& table = registry();
  std::lock_guard lock(table.mutex);
  table.graphs[graph->handle()] = graph;
}

namespace {

using Graphs = decltype(Registry::graphs);

Graphs::iterator find_graph(Graphs& graphs, aclmdlRI handle) {
  require_address(handle, "modelRI");
  const auto found = graphs.find(handle);
  if (found == graphs.end()) {
    fail(kInvalidParam, "The model %p does not exist: it was destroyed or never captured.", handle);
  }
  return found;
}

}  // namespace

std::shared_ptr<Graph> Graph::from_handle(aclmdlRI handle, bool may_be_unfinished) {
  auto& table = registry();
  std::lock_guard lock(table.mutex);
  auto graph = find_graph(table.graphs, handle)->second;
  if (!may_be_unfinished && !graph->is_finished_) {
    fail(ACL_ERROR_RT_MODEL_CAPTURED, "The model %p is still being captured.", handle);
  }
  return graph;
}

void Graph::destroy(aclmdlRI handle) {
  discard(*from_handle(handle));
}

void Graph::discard(Graph& graph) {
  std::shared_ptr<Graph> last;  // released after the lock: the destructor takes it too
  auto& table = registry();
  std::lock_guard lock(table.mutex);
  const auto found = find_graph(table.graphs, graph.handle());
  last = std::move(found->second);
  table.graphs.erase(found);
}

void Graph::discard_all(const Device& device) {
  std::vector<std::shared_ptr<Graph>> last;  // as above
  auto& table = registry();
  std::lock_guard lock(table.mutex);
  for (auto it = table.graphs.begin(); it != table.graphs.end();) {
    if (&it->second->device_ != &device) {
      ++it;
      continue;
    }
    last.push_back(std::move(it->second));
    it = table.graphs.erase(it);
  }
}

size_t Graph::add_node(TaskPtr task, int lane, bool updatable, std::vector<size_t> after) {
  if (task->kind() == TaskKind::kKernel || task->kind() == TaskKind::kCollective) launch_counts_.add(task->name());
  nodes_.push_back({.task = std::move(task), .lane = lane, .updatable = updatable, .after = std::move(after)});
  return nodes_.size() - 1;
}

TaskGroup* Graph::add_group() {
  groups_.push_back(std::make_unique<TaskGroup>());
  auto& table = registry();
  std::lock_guard lock(table.mutex);
  table.groups[groups_.back().get()] = this;
  return groups_.back().get();
}

std::pair<TaskGroup*, std::shared_ptr<Graph>> Graph::from_group_handle(aclrtTaskGrp handle) {
  auto& table = registry();
  std::lock_guard lock(table.mutex);
  const auto found = table.groups.find(handle);
  auto graph = found == table.groups.end() ? nullptr : found->second->weak_from_this().lock();
  if (graph != nullptr) return {static_cast<TaskGroup*>(handle), std::move(graph)};
  fail(kInvalidParam, "the task group %p does not exist: its graph was destroyed or never captured.", handle);
}

void Graph::hold(const Device::Budget& budget) {
  device_.reserve(budget);
  budget_.streams += budget.streams;
  budget_.events += budget.events;
  budget_.notifies += budget.notifies;
}

void Graph::replay(Stream& stream) {
  Timeline& timeline = Clock::timeline();
  const bool overlaps = Clock::models_time() && lanes_ > 1;
  std::vector<int64_t> lane_end(overlaps ? lanes_ : 0, timeline.end_ns());
  std::vector<int64_t> finished(overlaps ? nodes_.size() : 0);
  for (size_t i = 0; i < nodes_.size(); ++i) {
    if (device_.has_failed() || stream.must_give_up()) return;
    const Node& node = nodes_[i];
    if (!overlaps) {
      run_node(node, stream);
      continue;
    }
    int64_t start = lane_end[node.lane];
    for (size_t earlier : node.after) start = std::max(start, finished[earlier]);
    timeline.set_end(start);
    run_node(node, stream);
    finished[i] = lane_end[node.lane] = timeline.end_ns();
  }
  for (int64_t end : lane_end) timeline.reach(end);
}

void Graph::run_node(const Node& node, Stream& stream) {
  if (!node.updatable) return execute(*node.task, stream);
  TaskPtr task;  // a copy: an update may replace the node while it runs
  {
    std::lock_guard lock(update_mutex_);
    task = node.task;
  }
  execute(*task, stream);
}

void Graph::replace(const TaskGroup& group, const std::vector<TaskPtr>& tasks) {
  std::lock_guard lock(update_mutex_);
  for (size_t i = 0; i < tasks.size(); ++i) nodes_[group.nodes[i]].task = tasks[i];
}

const char* Graph::task_name(size_t node) const {
  std::lock_guard lock(update_mutex_);
  return nodes_[node].task->name();
}

std::string Graph::describe() const {
  std::string text = "{\"model_id\": " + std::to_string(id_) + ", \"nodes\": [";
  for (size_t i = 0; i < nodes_.size(); ++i) {
    text += std::string(i == 0 ? "" : ",") + "\n  {\"name\": \"" + task_name(i) +
            "\", \"stream\": " + std::to_string(nodes_[i].lane) + "}";
  }
  return text + "\n]}\n";
}

void GroupUpdate::begin(Stream& stream, aclrtTaskGrp handle) {
  refuse_on_captured_stream(stream);
  auto [group, graph] = Graph::from_group_handle(handle);
  Graph::from_handle(graph->handle());
  std::unique_ptr<GroupUpdate> update(new GroupUpdate(group, std::move(graph)));
  auto& table = updates();
  std::lock_guard lock(table.mutex);
  if (table.by_stream.count(&stream) != 0 || !stream.redirect(nullptr, update.get())) {
    fail(ACL_ERROR_STREAM_TASK_GROUP_STATUS, "Stream %d already updates a task group.", stream.id());
  }
  table.by_stream[&stream] = std::move(update);
}

namespace {

// The stream's tasks go into its queue again. Null if it updates nothing.
std::unique_ptr<GroupUpdate> take_update(Stream& stream) {
  auto& table = updates();
  std::lock_guard lock(table.mutex);
  auto node = table.by_stream.extract(&stream);
  if (node.empty()) return nullptr;
  stream.redirect(node.mapped().get(), nullptr);
  return std::move(node.mapped());
}

}  // namespace

void GroupUpdate::abandon(Stream& stream) {
  take_update(stream);
}

void GroupUpdate::end(Stream& stream) {
  const auto update = take_update(stream);
  if (update == nullptr) {
    fail(ACL_ERROR_STREAM_TASK_GROUP_STATUS, "Stream %d updates no task group.", stream.id());
  }
  update->check();
  stream.append(std::make_shared<UpdateTask>(update->graph_, update->group_, std::move(update->tasks_)));
}

void GroupUpdate::check() const {
  const auto& nodes = group_->nodes;
  if (nodes.size() != tasks_.size()) {
    fail(ACL_ERROR_RT_MODEL_UPDATE_FAILED,
         "the group has %zu tasks, the update has %zu; they must match one by one.",
         nodes.size(), tasks_.size());
  }
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (std::string_view(graph_->task_name(nodes[i])) != tasks_[i]->name()) {
      fail(ACL_ERROR_RT_MODEL_UPDATE_FAILED, "task %zu of the group is %s and cannot become %s.", i,
           graph_->task_name(nodes[i]), tasks_[i]->name());
    }
  }
}

}  // namespace emulator
