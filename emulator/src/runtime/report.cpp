// The counters as JSON: for Python through ctypes, and in a file when the process ends.
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string>

#include "core/chips.h"
#include "core/config.h"
#include "core/fork.h"
#include "core/json.h"
#include "core/modeled_time.h"
#include "core/stats.h"
#include "runtime/device.h"
#include "runtime/graph.h"
#include "runtime/stream.h"

namespace emulator {
namespace {

using Counts = std::map<std::string, uint64_t>;

// One JSON object, written member by member.
class Object {
 public:
  Object& add(const std::string& name, const std::string& json) {
    text_ += (text_.empty() ? "" : ", ") + json_quote(name) + ": " + json;
    return *this;
  }
  Object& add(const std::string& name, uint64_t number) { return add(name, std::to_string(number)); }
  Object& add(const std::string& name, const std::atomic<uint64_t>& number) { return add(name, number.load()); }
  std::string json() const { return "{" + text_ + "}"; }

 private:
  std::string text_;
};

std::string json_of(const Counts& counts) {
  Object object;
  for (const auto& [name, count] : counts) object.add(name, count);
  return object.json();
}

uint64_t sum_of(const Counts& counts) {
  uint64_t sum = 0;
  for (const auto& [name, count] : counts) sum += count;
  return sum;
}

Counts launches() {
  Counts counts = retired_launches();
  for (int id = 0; id < device_count(); ++id) {
    for (const Stream* stream : device_at(id).streams()) stream->launch_counts().merge_into(counts);
  }
  return counts;
}

// Operators that do nothing but convert a tensor to another format.
uint64_t format_casts(const Counts& counts) {
  uint64_t sum = 0;
  for (const char* name : {"TransData", "aclnnNpuFormatCast"}) {
    const auto found = counts.find(name);
    if (found != counts.end()) sum += found->second;
  }
  return sum;
}

std::string synchronizations() {
  const auto& syncs = stats().syncs;
  Object object;
  uint64_t total = 0;
  const char* const names[] = {"stream", "device", "event", "blocking_copy"};
  for (int kind = 0; kind < static_cast<int>(Sync::kCount); ++kind) {
    object.add(names[kind], syncs[kind]);
    total += syncs[kind];
  }
  return object.add("total", total).json();
}

std::string copies() {
  Object object;
  const char* const names[] = {"host_to_device", "device_to_host", "device_to_device", "host_to_host"};
  for (int direction = 0; direction < static_cast<int>(Direction::kCount); ++direction) {
    const auto& blocking = stats().sync_copies[direction];
    const auto& queued = stats().async_copies[direction];
    object.add(names[direction], Object()
                                     .add("count", blocking.count + queued.count)
                                     .add("bytes", blocking.bytes + queued.bytes)
                                     .add("blocking_count", blocking.count)
                                     .json());
  }
  return object.json();
}

std::string memory() {
  Object object;
  object.add("allocations", stats().allocations).add("frees", stats().frees);
  for (int id = 0; id < device_count(); ++id) {
    const Device& device = device_at(id);
    if (device.peak_bytes() == 0) continue;
    object.add("chip_" + std::to_string(device.chip_index()),
               Object()
                   .add("used_bytes", static_cast<uint64_t>(device.used_bytes()))
                   .add("peak_bytes", static_cast<uint64_t>(device.peak_bytes()))
                   .json());
  }
  return object.json();
}

std::string path_for_this_process() {
  std::string path = config().stats_path;
  const std::string process = std::to_string(getpid());
  struct stat status {};
  if (stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) return path + "/" + process + ".json";
  for (size_t at = path.find("%p"); at != std::string::npos; at = path.find("%p", at + process.size())) {
    path.replace(at, 2, process);
  }
  return path;
}

void write_stats() {
  if (is_forked_from_user_of_devices()) return;  // the counts are the parent's, which writes them itself
  const std::string path = path_for_this_process();
  std::ofstream file(path);
  if (!(file << stats_json() << "\n")) {
    std::fprintf(stderr, "ascend-emulator: ASCEND_EMULATOR_STATS: \"%s\" cannot be written.\n", path.c_str());
  }
}

}  // namespace

std::string stats_json() {
  const Counts eager = launches();
  const Counts replayed = Graph::replayed_launches();
  const Stats& counted = stats();
  return Object()
      .add("chip", json_quote(chip().name))
      .add("launches", json_of(eager))
      .add("launches_total", sum_of(eager))
      .add("graph_launches", json_of(replayed))
      .add("graph_launches_total", sum_of(replayed))
      .add("graphs", Object()
                         .add("captures", counted.graph_captures)
                         .add("replays", counted.graph_replays)
                         .add("updates", counted.graph_updates)
                         .json())
      .add("synchronizations", synchronizations())
      .add("copies", copies())
      .add("events", Object()
                         .add("records", counted.event_records)
                         .add("waits", counted.event_waits)
                         .add("queries", counted.event_queries)
                         .json())
      .add("host_callbacks", counted.host_callbacks)
      .add("format_casts", format_casts(eager) + format_casts(replayed))
      .add("memory", memory())
      .add("modeled_ns", json_of(modeled_time_ns()))
      .json();
}

void reset_stats() {
  Stats& counted = stats();
  for (auto& counter : counted.syncs) counter = 0;
  for (auto* copies : {counted.sync_copies, counted.async_copies}) {
    for (int direction = 0; direction < static_cast<int>(Direction::kCount); ++direction) {
      copies[direction].count = 0;
      copies[direction].bytes = 0;
    }
  }
  for (auto* counter : {&counted.event_records, &counted.event_waits, &counted.event_queries, &counted.host_callbacks,
                        &counted.graph_captures, &counted.graph_replays, &counted.graph_updates, &counted.allocations,
                        &counted.frees}) {
    *counter = 0;
  }
  for (int id = 0; id < device_count(); ++id) {
    device_at(id).reset_peak();
    for (Stream* stream : device_at(id).streams()) stream->reset_launch_counts();
  }
  clear_retired_launches();
  Graph::reset_replay_counts();
  reset_modeled_time();
}

void write_stats_at_exit() {
  static const bool registered = [] {
    if (!config().stats_path.empty()) std::atexit(write_stats);
    return true;
  }();
  (void)registered;
}

}  // namespace emulator

extern "C" {

// Valid until the calling thread asks again.
const char* ascend_emulator_stats_json() {
  thread_local std::string text;
  text = emulator::stats_json();
  return text.c_str();
}

void ascend_emulator_stats_reset() {
  emulator::reset_stats();
}

}  // extern "C"
