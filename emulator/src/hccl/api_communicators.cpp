// Making, naming and destroying communicators.
#include <hccl/hccl.h>

#include <cstring>
#include <string>

#include "core/chips.h"
#include "hccl/errors.h"
#include "hccl/handles.h"
#include "hccl/join.h"
#include "hccl/support.h"

namespace emulator::hccl {
namespace {

// The fields that matter here, of a configuration that may be absent.
struct Configuration {
  std::string name;
  int32_t execute_timeout_s = 0;

  explicit Configuration(const HcclCommConfig* config) {
    if (config == nullptr) return;
    uint32_t magic;
    std::memcpy(&magic, config->reserved + sizeof(size_t), sizeof magic);
    if (magic != HCCL_COMM_CONFIG_MAGIC_WORD)
      fail(HCCL_E_PARA, "the configuration was not set up by HcclCommConfigInit.");
    name.assign(config->hcclCommName, strnlen(config->hcclCommName, COMM_NAME_MAX_LENGTH));
    if (config->hcclExecTimeOut != HCCL_COMM_EXECTIMEOUT_CONFIG_NOT_SET) execute_timeout_s = config->hcclExecTimeOut;
  }
};

HcclComm add_communicator(const std::string& identity, const Configuration& configuration, uint32_t rank,
                          std::shared_ptr<Segment> segment) {
  const std::string& name = configuration.name.empty() ? identity : configuration.name;
  return add_handle(std::make_shared<Communicator>(identity, name, rank, std::move(segment),
                                                   execute_timeout_s(configuration.execute_timeout_s)));
}

void init_root(const char* function, uint32_t ranks, const HcclRootInfo* root_info, uint32_t rank,
               const HcclCommConfig* config, HcclComm* handle) {
  if (handle == nullptr) fail(HCCL_E_PTR, "%s: comm is null.", function);
  const Configuration configuration(config);
  const RootInfo& root = checked_root(root_info);
  *handle = add_communicator(root.name, configuration, rank, join_root(root, rank, ranks));
}

void init_table(const char* path, uint32_t rank, const HcclCommConfig* config, HcclComm* handle) {
  if (path == nullptr || handle == nullptr) fail(HCCL_E_PTR, "the rank table or the communicator is null.");
  const Configuration configuration(config);
  const std::string name = rank_table_name(path);
  const uint32_t ranks = count_ranks(path, rank);
  *handle = add_communicator(name, configuration, rank, join_named(name, rank == 0, rank, ranks));
}

[[noreturn]] void unsupported(const char* feature) { fail(HCCL_E_NOT_SUPPORT, "the emulator has no %s.", feature); }

}  // namespace
}  // namespace emulator::hccl

using namespace emulator;
using namespace emulator::hccl;

extern "C" {

HcclResult HcclGetRootInfo(HcclRootInfo* root_info) {
  return hccl_guarded("HcclGetRootInfo", [&] {
    if (root_info == nullptr) fail(HCCL_E_PTR, "rootInfo is null.");
    const RootInfo root = create_root();
    std::memset(root_info, 0, sizeof *root_info);
    std::memcpy(root_info, &root, sizeof root);
  });
}

HcclResult HcclCommInitRootInfo(uint32_t ranks, const HcclRootInfo* root_info, uint32_t rank, HcclComm* handle) {
  return hccl_guarded("HcclCommInitRootInfo",
                      [&] { init_root("HcclCommInitRootInfo", ranks, root_info, rank, nullptr, handle); });
}

HcclResult HcclCommInitRootInfoConfig(uint32_t ranks, const HcclRootInfo* root_info, uint32_t rank,
                                      const HcclCommConfig* config, HcclComm* handle) {
  return hccl_guarded("HcclCommInitRootInfoConfig",
                      [&] { init_root("HcclCommInitRootInfoConfig", ranks, root_info, rank, config, handle); });
}

HcclResult HcclCommInitClusterInfo(const char* path, uint32_t rank, HcclComm* handle) {
  return hccl_guarded("HcclCommInitClusterInfo", [&] { init_table(path, rank, nullptr, handle); });
}

HcclResult HcclCommInitClusterInfoConfig(const char* path, uint32_t rank, HcclCommConfig* config, HcclComm* handle) {
  return hccl_guarded("HcclCommInitClusterInfoConfig", [&] { init_table(path, rank, config, handle); });
}

HcclResult HcclCommInitAll(uint32_t count, int32_t* devices, HcclComm* handles) {
  return hccl_guarded("HcclCommInitAll", [&] {
    if (devices == nullptr || handles == nullptr) fail(HCCL_E_PTR, "devices or comms is null.");
    const auto segment = join_alone(count, devices);
    for (uint32_t rank = 0; rank < count; ++rank)
      handles[rank] = add_communicator("hccl_all", Configuration(nullptr), rank, segment);
  });
}

// Collective over the members of the new communicator. Ranks outside it may call with no rank ids and get none.
HcclResult HcclCreateSubCommConfig(HcclComm* parent, uint32_t count, uint32_t* rank_ids, uint64_t id, uint32_t rank,
                                   HcclCommConfig* config, HcclComm* handle) {
  return hccl_guarded("HcclCreateSubCommConfig", [&] {
    if (parent == nullptr || handle == nullptr) fail(HCCL_E_PTR, "comm or subComm is null.");
    const auto whole = find_communicator(*parent);
    if (rank_ids == nullptr) {
      *handle = nullptr;
      return;
    }
    for (uint32_t i = 0; i < count; ++i) {
      if (rank_ids[i] >= whole->size())
        fail(HCCL_E_PARA, "rank id %u is not a rank below %u.", rank_ids[i], whole->size());
    }
    if (rank >= count || rank_ids[rank] != whole->rank()) {
      fail(HCCL_E_PARA, "this is rank %u of the parent, which is not rank %u of the new communicator.", whole->rank(),
           rank);
    }
    const std::string name = whole->identity() + "_" + std::to_string(id);
    *handle = add_communicator(name, Configuration(config), rank, join_named(name, rank == 0, rank, count));
  });
}

HcclResult HcclCommDestroy(HcclComm handle) {
  return hccl_guarded("HcclCommDestroy", [&] { remove_handle(handle)->leave(); });
}

HcclResult HcclGetCommName(HcclComm handle, char* name) {
  return hccl_guarded("HcclGetCommName", [&] {
    if (name == nullptr) fail(HCCL_E_PTR, "commName is null.");
    const std::string& text = find_communicator(handle)->name();
    std::memset(name, 0, COMM_NAME_MAX_LENGTH);
    text.copy(name, COMM_NAME_MAX_LENGTH - 1);
  });
}

HcclResult HcclGetRankSize(HcclComm handle, uint32_t* size) {
  return hccl_guarded("HcclGetRankSize", [&] {
    if (size == nullptr) fail(HCCL_E_PTR, "rankSize is null.");
    *size = find_communicator(handle)->size();
  });
}

HcclResult HcclGetRankId(HcclComm handle, uint32_t* rank) {
  return hccl_guarded("HcclGetRankId", [&] {
    if (rank == nullptr) fail(HCCL_E_PTR, "rank is null.");
    *rank = find_communicator(handle)->rank();
  });
}

HcclResult HcclGetCommAsyncError(HcclComm handle, HcclResult* error) {
  return hccl_guarded("HcclGetCommAsyncError", [&] {
    if (error == nullptr) fail(HCCL_E_PTR, "asyncError is null.");
    *error = find_communicator(handle)->asynchronous_error();
  });
}

uint32_t HcclGetCommConfigCapability() { return HCCL_COMM_CONFIG_RESERVED; }

// Reductions are deterministic whatever is asked for; the other choices select how hardware moves data.
HcclResult HcclSetConfig(HcclConfig config, HcclConfigValue value) {
  return hccl_guarded("HcclSetConfig", [&] {
    if (config < HCCL_DETERMINISTIC || config >= HCCL_CONFIG_RESERVED)
      fail(HCCL_E_PARA, "configuration %d is unknown.", config);
    if (value.value < 0) fail(HCCL_E_PARA, "%d is not a value of configuration %d.", value.value, config);
  });
}

// A communicator whose ranks stopped in the middle of different operations cannot be put together again.
HcclResult HcclCommResume(HcclComm handle) {
  return hccl_guarded("HcclCommResume", [&] {
    if (find_communicator(handle)->asynchronous_error() != HCCL_SUCCESS)
      unsupported("resumption of a failed communicator; make a new one");
  });
}

HcclResult HcclCommSuspend(HcclComm) {
  return hccl_guarded("HcclCommSuspend", [] { unsupported("suspension of communicators"); });
}
HcclResult HcclCommWorkingDevNicSet(HcclComm, uint32_t*, bool*, uint32_t) {
  return hccl_guarded("HcclCommWorkingDevNicSet", [] { unsupported("network interfaces to switch between"); });
}
HcclResult HcclCommRegister(HcclComm, void*, uint64_t, void**, uint32_t) {
  return hccl_guarded("HcclCommRegister", [] { unsupported("one-sided memory windows"); });
}
HcclResult HcclCommDeregister(HcclComm, void*) {
  return hccl_guarded("HcclCommDeregister", [] { unsupported("one-sided memory windows"); });
}
HcclResult HcclCommExchangeMem(HcclComm, void*, uint32_t*, uint32_t) {
  return hccl_guarded("HcclCommExchangeMem", [] { unsupported("one-sided memory windows"); });
}
HcclResult HcclCommSetMemoryRange(HcclComm, void*, size_t, size_t, uint64_t) {
  return hccl_guarded("HcclCommSetMemoryRange", [] { unsupported("zero-copy memory ranges"); });
}
HcclResult HcclCommUnsetMemoryRange(HcclComm, void*) {
  return hccl_guarded("HcclCommUnsetMemoryRange", [] { unsupported("zero-copy memory ranges"); });
}
HcclResult HcclCommActivateCommMemory(HcclComm, void*, size_t, size_t, aclrtDrvMemHandle, uint64_t) {
  return hccl_guarded("HcclCommActivateCommMemory", [] { unsupported("zero-copy memory ranges"); });
}
HcclResult HcclCommDeactivateCommMemory(HcclComm, void*) {
  return hccl_guarded("HcclCommDeactivateCommMemory", [] { unsupported("zero-copy memory ranges"); });
}

}  // extern "C"
