#include "hccl/handles.h"

#include <mutex>
#include <unordered_map>

#include "core/errors.h"

namespace emulator::hccl {
namespace {

std::mutex g_mutex;

// Never destroyed: tasks of other threads may still hold communicators when the process exits.
std::unordered_map<HcclComm, std::shared_ptr<Communicator>>& handles() {
  static auto& map = *new std::unordered_map<HcclComm, std::shared_ptr<Communicator>>;
  return map;
}

}  // namespace

HcclComm add_handle(std::shared_ptr<Communicator> communicator) {
  std::lock_guard lock(g_mutex);
  const HcclComm handle = communicator.get();
  handles()[handle] = std::move(communicator);
  return handle;
}

std::shared_ptr<Communicator> find_communicator(HcclComm handle) {
  if (handle == nullptr) fail(HCCL_E_PTR, "the communicator is null.");
  std::lock_guard lock(g_mutex);
  const auto found = handles().find(handle);
  if (found == handles().end()) fail(HCCL_E_PARA, "the communicator does not exist (any more).");
  return found->second;
}

std::shared_ptr<Communicator> remove_handle(HcclComm handle) {
  const auto communicator = find_communicator(handle);
  std::lock_guard lock(g_mutex);
  handles().erase(handle);
  return communicator;
}

}  // namespace emulator::hccl
