#include "hccl/join.h"

#include <hccl/hccl_types.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <sstream>

#include "core/errors.h"
#include "core/json.h"
#include "hccl/process.h"
#include "hccl/support.h"
#include "runtime/device.h"

namespace emulator::hccl {
namespace {

constexpr char kMagic[] = "ascend-emulator";
static_assert(sizeof(RootInfo) <= HCCL_ROOT_INFO_BYTES);

std::mutex g_mutex;

// Roots that this process has announced and no rank has taken up yet.
std::map<std::string, std::unique_ptr<Listener>>& announced_roots() {
  static auto& roots = *new std::map<std::string, std::unique_ptr<Listener>>;
  return roots;
}

std::unique_ptr<Listener> take_announced(const std::string& name) {
  std::lock_guard lock(g_mutex);
  auto node = announced_roots().extract(name);
  return node.empty() ? nullptr : std::move(node.mapped());
}

class File {
 public:
  explicit File(int descriptor) : descriptor_(descriptor) {}
  ~File() { close(descriptor_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

void check_size(uint32_t rank, uint32_t ranks) {
  if (ranks == 0 || ranks > kMaxRanks || rank >= ranks) {
    fail(HCCL_E_PARA, "rank %u of %u: the emulator connects 1 to %u ranks.", rank, ranks, kMaxRanks);
  }
}

std::shared_ptr<Segment> lead(Listener* listener, uint32_t rank, uint32_t ranks, const Limit& limit) {
  const File file(Segment::create_file(ranks));
  auto segment = std::make_shared<Segment>(file.get(), ranks);
  segment->attach(rank, current_device().chip_index());
  if (ranks > 1) listener->hand_out(file.get(), rank, ranks, limit);
  segment->wait_until_all_attached(rank, limit);
  return segment;
}

std::shared_ptr<Segment> follow(const Leader& leader, uint32_t rank, uint32_t ranks, const Limit& limit) {
  const File file(receive_file(leader, rank, ranks, limit));
  auto segment = std::make_shared<Segment>(file.get(), ranks);
  segment->attach(rank, current_device().chip_index());
  segment->wait_until_all_attached(rank, limit);
  return segment;
}

std::string read_file(const std::string& path) {
  std::ifstream file(path);
  if (!file) fail(HCCL_E_OPEN_FILE_FAILURE, "the rank table %s cannot be read.", path.c_str());
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

const Json& required(const Json& object, const char* key, const std::string& path) {
  const Json* value = object.find(key);
  if (value == nullptr) fail(HCCL_E_PARA, "the rank table %s lacks %s.", path.c_str(), key);
  return *value;
}

}  // namespace

RootInfo create_root() {
  static std::atomic<uint32_t> count{0};
  RootInfo root{};
  root.pid = getpid();
  root.start_ticks = process_start_ticks(root.pid);
  std::memcpy(root.magic, kMagic, sizeof kMagic);
  snprintf(root.name, sizeof root.name, "ascend_emulator_hccl_%d_%u_%08x", root.pid, count++, std::random_device()());
  auto listener = std::make_unique<Listener>(root.name);
  std::lock_guard lock(g_mutex);
  announced_roots()[root.name] = std::move(listener);
  return root;
}

const RootInfo& checked_root(const void* bytes) {
  if (bytes == nullptr) fail(HCCL_E_PTR, "the root info is null.");
  const auto& root = *static_cast<const RootInfo*>(bytes);
  if (std::memcmp(root.magic, kMagic, sizeof kMagic) != 0) {
    fail(HCCL_E_PARA, "the root info was not written by this emulator's HcclGetRootInfo.");
  }
  return root;
}

std::shared_ptr<Segment> join_root(const RootInfo& root, uint32_t rank, uint32_t ranks) {
  check_size(rank, ranks);
  const auto limit = Limit::after(connect_timeout_s(), "HcclCommInitRootInfo", "HCCL_CONNECT_TIMEOUT");
  const auto listener = take_announced(root.name);
  if (listener != nullptr) return lead(listener.get(), rank, ranks, limit);
  return follow({root.name, root.pid, root.start_ticks}, rank, ranks, limit);
}

std::shared_ptr<Segment> join_named(const std::string& name, bool leads, uint32_t rank, uint32_t ranks) {
  check_size(rank, ranks);
  const auto limit = Limit::after(connect_timeout_s(), "joining a communicator", "HCCL_CONNECT_TIMEOUT");
  if (!leads) return follow({name}, rank, ranks, limit);
  Listener listener(name);
  return lead(&listener, rank, ranks, limit);
}

std::shared_ptr<Segment> join_alone(uint32_t ranks, const int32_t* devices) {
  check_size(0, ranks);
  const File file(Segment::create_file(ranks));
  auto segment = std::make_shared<Segment>(file.get(), ranks);
  for (uint32_t rank = 0; rank < ranks; ++rank) segment->attach(rank, device_at(devices[rank]).chip_index());
  return segment;
}

uint32_t count_ranks(const std::string& path, uint32_t rank) {
  const Json table = Json::parse(read_file(path));
  if (required(table, "status", path).string() != "completed")
    fail(HCCL_E_PARA, "the rank table %s is not completed.", path.c_str());
  std::set<uint32_t> ranks;
  for (const Json& server : required(table, "server_list", path).items()) {
    for (const Json& device : required(server, "device", path).items()) {
      ranks.insert(static_cast<uint32_t>(std::stoul(required(device, "rank_id", path).string())));
    }
  }
  if (ranks.empty() || *ranks.rbegin() + 1 != ranks.size() || ranks.count(rank) == 0) {
    fail(HCCL_E_PARA, "the rank table %s must number its %zu devices from 0 and contain rank %u.", path.c_str(),
         ranks.size(), rank);
  }
  return static_cast<uint32_t>(ranks.size());
}

std::string rank_table_name(const std::string& path) {
  char name[96];
  snprintf(name, sizeof name, "ascend_emulator_hccl_table_%u_%016zx", getuid(),
           std::hash<std::string>()(read_file(path)));
  return name;
}

}  // namespace emulator::hccl
