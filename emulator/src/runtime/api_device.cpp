// Devices, contexts, and the facts of the emulated chip.
#include <acl/acl.h>
#include <acl/error_codes/rt_error_codes.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>

#include "core/chips.h"
#include "core/config.h"
#include "core/errors.h"
#include "core/faults.h"
#include "core/stats.h"
#include "runtime/allocations.h"
#include "runtime/capture.h"
#include "runtime/device.h"
#include "runtime/graph.h"
#include "runtime/stream.h"

using namespace emulator;

namespace {

void set_device(int id) {
  Device& device = device_at(id);
  faults().check_set_device(device.chip_index());
  note_device_use();
  ++device.set_count;
  set_current_context(device.primary_context());
}

void reset_device(int id) {
  Device& device = device_at(id);
  Capture::abandon(device);
  for (Stream* stream : device.streams()) GroupUpdate::abandon(*stream);
  for (Stream* stream : device.streams()) stream->destroy(/*force=*/device.has_failed());
  Graph::discard_all(device);
  free_all_memory_of(device);
  device.clear_failure();
  device.set_count = 0;
  if (current_device_or_null() == &device) set_current_context(nullptr);
}

void synchronize_device(const Deadline& deadline) {
  count_sync(Sync::kDevice);
  Device& device = current_device();
  refuse_while_device_captures(device);
  for (Stream* stream : device.streams()) stream->synchronize(deadline);
  device.throw_if_failed();
}

int64_t device_attribute(const Device& device, aclrtDevAttr attribute) {
  switch (attribute) {
    case ACL_DEV_ATTR_AICORE_CORE_NUM:
    case ACL_DEV_ATTR_CUBE_CORE_NUM:
      return chip().cube_cores;
    case ACL_DEV_ATTR_VECTOR_CORE_NUM:
      return chip().vector_cores;
    case ACL_DEV_ATTR_TOTAL_GLOBAL_MEM_SIZE:
      return device.memory_bytes();
    case ACL_DEV_ATTR_L2_CACHE_SIZE:
      return chip().l2_bytes;
    case ACL_DEV_ATTR_PHY_CHIP_ID:
      return device.chip_index();
    case ACL_DEV_ATTR_IS_VIRTUAL:
      return 0;
    default:
      fail(ACL_ERROR_RT_FEATURE_NOT_SUPPORT, "attribute %d is not emulated.", attribute);
  }
}

// How many cores an operator may use; torch_npu lets a program lower it for a device or a stream.
struct CoreLimit {
  uint32_t cube = chip().cube_cores;
  uint32_t vector = chip().vector_cores;
  uint32_t& of(aclrtDevResLimitType type) {
    if (type == ACL_RT_DEV_RES_CUBE_CORE) return cube;
    if (type == ACL_RT_DEV_RES_VECTOR_CORE) return vector;
    fail(kInvalidParam, "resource type %d is unknown.", type);
  }
  void set(aclrtDevResLimitType type, uint32_t value) {
    const CoreLimit all;
    const uint32_t most = CoreLimit(all).of(type);
    if (value == 0 || value > most) {
      fail(kInvalidParam, "%u cores were asked for; %s has 1 to %u.", value, chip().name, most);
    }
    of(type) = value;
  }
};

std::mutex g_limits_mutex;

std::map<const void*, CoreLimit>& limits() {  // by Device or Stream
  static auto& table = *new std::map<const void*, CoreLimit>;
  return table;
}

thread_local const void* t_limit_owner = nullptr;

CoreLimit limit_of(const void* owner, const void* fallback) {
  auto& table = limits();
  for (const void* candidate : {owner, fallback}) {
    const auto found = table.find(candidate);
    if (found != table.end()) return found->second;
  }
  return {};
}

}  // namespace

extern "C" {

aclError aclrtGetDeviceCount(uint32_t* count) {
  return guarded("aclrtGetDeviceCount", [&] {
    chip();
    give(count, "count", [&] { return static_cast<uint32_t>(device_count()); });
    if (*count == 0) fail(ACL_ERROR_RT_NO_DEVICE, "ASCEND_RT_VISIBLE_DEVICES leaves no device.");
  });
}

aclError aclrtSetDevice(int32_t id) {
  return guarded("aclrtSetDevice", [&] { set_device(id); });
}

aclError aclrtResetDevice(int32_t id) {
  return guarded("aclrtResetDevice", [&] {
    Device& device = device_at(id);
    if (device.set_count > 1) {
      --device.set_count;
    } else {
      reset_device(id);
    }
  });
}

aclError aclrtResetDeviceForce(int32_t id) {
  return guarded("aclrtResetDeviceForce", [&] { reset_device(id); });
}

aclError aclrtGetDevice(int32_t* id) {
  return guarded("aclrtGetDevice", [&] {
    // Asking for the default device does not make it the thread's.
    const bool is_implicit = current_device_or_null() == nullptr && default_device() >= 0;
    give(id, "deviceId", [&] { return is_implicit ? default_device() : current_device().id(); });
  });
}

aclError aclrtCreateContext(aclrtContext* context, int32_t id) {
  return guarded("aclrtCreateContext", [&] {
    require_address(context, "context");
    Context& created = Context::create(device_at(id));
    note_device_use();
    set_current_context(&created);
    *context = &created;
  });
}

aclError aclrtDestroyContext(aclrtContext context) {
  return guarded("aclrtDestroyContext", [&] { Context::destroy(context); });
}

aclError aclrtSetCurrentContext(aclrtContext context) {
  return guarded("aclrtSetCurrentContext", [&] { set_current_context(&Context::from_handle(context)); });
}

aclError aclrtGetCurrentContext(aclrtContext* context) {
  return guarded("aclrtGetCurrentContext", [&] { give(context, "context", [&] { return &current_context(); }); });
}

aclError aclrtGetPrimaryCtxState(int32_t id, uint32_t* flags, int32_t* active) {
  return guarded("aclrtGetPrimaryCtxState", [&] {
    if (flags != nullptr) *flags = 0;
    give(active, "active", [&] { return device_at(id).set_count > 0 ? 1 : 0; });
  });
}

aclError aclrtGetRunMode(aclrtRunMode* mode) {
  return guarded("aclrtGetRunMode", [&] { required(mode, "runMode") = ACL_HOST; });
}

aclError aclrtSynchronizeDevice() {
  return guarded("aclrtSynchronizeDevice", [] { synchronize_device(Deadline::never()); });
}

aclError aclrtSynchronizeDeviceWithTimeout(int32_t timeout_ms) {
  return guarded("aclrtSynchronizeDeviceWithTimeout", [&] { synchronize_device(Deadline::after_ms(timeout_ms)); });
}

// Drops what is queued and lets the device be used again, as the recovery of a failed training step does.
aclError aclrtDeviceTaskAbort(int32_t id, uint32_t timeout_ms) {
  return guarded("aclrtDeviceTaskAbort", [&] {
    Device& device = device_at(id);
    for (Stream* stream : device.streams()) stream->wait_until_idle();
    device.clear_failure();
  });
}

aclError aclGetDeviceCapability(uint32_t id, aclDeviceInfo info, int64_t* value) {
  return guarded("aclGetDeviceCapability", [&] {
    require_address(value, "value");
    device_at(static_cast<int>(id));
    switch (info) {
      case ACL_DEVICE_INFO_AI_CORE_NUM: *value = chip().cube_cores; break;
      case ACL_DEVICE_INFO_VECTOR_CORE_NUM: *value = chip().vector_cores; break;
      case ACL_DEVICE_INFO_L2_SIZE: *value = chip().l2_bytes; break;
      default: fail(ACL_ERROR_INVALID_PARAM, "capability %d is unknown.", info);
    }
  });
}

aclError aclrtGetDeviceInfo(uint32_t id, aclrtDevAttr attribute, int64_t* value) {
  return guarded("aclrtGetDeviceInfo", [&] {
    give(value, "value", [&] { return device_attribute(device_at(static_cast<int>(id)), attribute); });
  });
}

// Stable for one chip of the machine: programs tell chips apart by it.
aclError aclrtDeviceGetUuid(int32_t id, aclrtUuid* uuid) {
  return guarded("aclrtDeviceGetUuid", [&] {
    require_address(uuid, "uuid");
    char text[sizeof uuid->bytes + 1];
    std::snprintf(text, sizeof text, "emulated-chip%03d", device_at(id).chip_index());
    std::memcpy(uuid->bytes, text, sizeof uuid->bytes);
  });
}

aclError aclrtGetDeviceUtilizationRate(int32_t id, aclrtUtilizationInfo* info) {
  return guarded("aclrtGetDeviceUtilizationRate", [&] {
    const Device& device = device_at(id);
    bool busy = false;
    for (const Stream* stream : device.streams()) busy = busy || !stream->is_idle();
    required(info, "utilizationInfo") = {};
    info->cubeUtilization = busy ? 100 : 0;
    info->vectorUtilization = busy ? 100 : 0;
    info->aicpuUtilization = 0;
    info->memoryUtilization = static_cast<int32_t>(device.used_bytes() * 100 / device.memory_bytes());
  });
}

aclError aclrtDeviceGetBareTgid(int32_t* process) {
  return guarded("aclrtDeviceGetBareTgid", [&] { required(process, "pid") = getpid(); });
}

aclError aclrtGetLogicDevIdByUserDevId(const int32_t user, int32_t* const logical) {
  return guarded("aclrtGetLogicDevIdByUserDevId", [&] {
    give(logical, "logicDevId", [&] { return device_at(user).chip_index(); });
  });
}

aclError aclrtGetUserDevIdByLogicDevId(const int32_t logical, int32_t* const user) {
  return guarded("aclrtGetUserDevIdByLogicDevId", [&] {
    require_address(user, "userDevid");
    for (int id = 0; id < device_count(); ++id) {
      if (device_at(id).chip_index() == logical) {
        *user = id;
        return;
      }
    }
    fail(ACL_ERROR_RT_INVALID_DEVICEID, "chip %d is not visible to this process.", logical);
  });
}

aclError aclrtGetPhyDevIdByLogicDevId(const int32_t logical, int32_t* const physical) {
  return guarded("aclrtGetPhyDevIdByLogicDevId", [&] {
    give(physical, "phyDevId", [&] { return device_at(logical).chip_index(); });
  });
}

aclError aclrtDeviceCanAccessPeer(int32_t* can_access, int32_t id, int32_t peer) {
  return guarded("aclrtDeviceCanAccessPeer", [&] {
    device_at(id);
    device_at(peer);
    give(can_access, "canAccessPeer", [&] { return id != peer ? 1 : 0; });
  });
}

aclError aclrtDeviceEnablePeerAccess(int32_t peer, uint32_t flags) {
  return guarded("aclrtDeviceEnablePeerAccess", [&] {
    if (flags != 0) fail(kInvalidParam, "flags must be 0, not %u.", flags);
    if (device_at(peer).id() == current_device().id()) fail(kInvalidParam, "device %d is its own peer.", peer);
  });
}

aclError aclrtDeviceDisablePeerAccess(int32_t peer) {
  return guarded("aclrtDeviceDisablePeerAccess", [&] { device_at(peer); });
}

aclError aclrtGetDeviceResLimit(int32_t id, aclrtDevResLimitType type, uint32_t* value) {
  return guarded("aclrtGetDeviceResLimit", [&] {
    std::lock_guard lock(g_limits_mutex);
    give(value, "value", [&] { return limit_of(&device_at(id), nullptr).of(type); });
  });
}

aclError aclrtSetDeviceResLimit(int32_t id, aclrtDevResLimitType type, uint32_t value) {
  return guarded("aclrtSetDeviceResLimit", [&] {
    std::lock_guard lock(g_limits_mutex);
    limits()[&device_at(id)].set(type, value);
  });
}

aclError aclrtResetDeviceResLimit(int32_t id) {
  return guarded("aclrtResetDeviceResLimit", [&] {
    std::lock_guard lock(g_limits_mutex);
    limits().erase(&device_at(id));
  });
}

aclError aclrtGetStreamResLimit(aclrtStream handle, aclrtDevResLimitType type, uint32_t* value) {
  return guarded("aclrtGetStreamResLimit", [&] {
    Stream& stream = Stream::from_handle(handle);
    std::lock_guard lock(g_limits_mutex);
    give(value, "value", [&] { return limit_of(&stream, &stream.device()).of(type); });
  });
}

aclError aclrtSetStreamResLimit(aclrtStream handle, aclrtDevResLimitType type, uint32_t value) {
  return guarded("aclrtSetStreamResLimit", [&] {
    Stream& stream = Stream::from_handle(handle);
    std::lock_guard lock(g_limits_mutex);
    limits()[&stream].set(type, value);
  });
}

aclError aclrtResetStreamResLimit(aclrtStream handle) {
  return guarded("aclrtResetStreamResLimit", [&] {
    std::lock_guard lock(g_limits_mutex);
    limits().erase(&Stream::from_handle(handle));
  });
}

aclError aclrtUseStreamResInCurrentThread(aclrtStream handle) {
  return guarded("aclrtUseStreamResInCurrentThread", [&] { t_limit_owner = &Stream::from_handle(handle); });
}

aclError aclrtUnuseStreamResInCurrentThread(aclrtStream handle) {
  t_limit_owner = nullptr;
  return ACL_SUCCESS;
}

aclError aclrtGetResInCurrentThread(aclrtDevResLimitType type, uint32_t* value) {
  return guarded("aclrtGetResInCurrentThread", [&] {
    std::lock_guard lock(g_limits_mutex);
    give(value, "value", [&] { return limit_of(t_limit_owner, &current_device()).of(type); });
  });
}

}  // extern "C"
