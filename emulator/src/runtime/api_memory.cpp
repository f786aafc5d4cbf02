// Device, physical and host memory.
#include <acl/acl.h>
#include <acl/error_codes/rt_error_codes.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>

#include "core/errors.h"
#include "core/faults.h"
#include "runtime/allocations.h"
#include "runtime/device.h"
#include "runtime/stream.h"

using namespace emulator;

namespace {

void allocate(void** address, size_t size_bytes, uint32_t policy) {
  require_address(address, "devPtr");
  if ((policy & 0xff) == ACL_MEM_MALLOC_HUGE1G_ONLY || (policy & 0xff) == ACL_MEM_MALLOC_HUGE1G_ONLY_P2P) {
    fail(ACL_ERROR_RT_FEATURE_NOT_SUPPORT, "pages of 1 GiB are not emulated; use ACL_MEM_MALLOC_HUGE_FIRST.");
  }
  Device& device = current_device();
  faults().check_allocation(device.chip_index());
  *address = allocate_device_memory(device, size_bytes);
}

void free_memory(void* address) {
  require_address(address, "devPtr");
  free_device_memory(address);
}

// Keys and shareable handles of this process's exports, as other processes receive them.
std::string encode(const SharedPages& pages) {
  char key[64];
  std::snprintf(key, sizeof key, "%d:%d:%zx:%zx:%d", pages.process, pages.file, pages.offset, pages.size_bytes,
                pages.device);
  return key;
}

SharedPages decode(const char* key) {
  require_address(key, "key");
  SharedPages pages;
  if (std::sscanf(key, "%d:%d:%zx:%zx:%d", &pages.process, &pages.file, &pages.offset, &pages.size_bytes,
                  &pages.device) != 5) {
    fail(kInvalidParam, "\"%s\" is not a memory key.", key);
  }
  return pages;
}

std::mutex g_imports_mutex;

std::map<std::string, void*>& imports() {
  static auto& table = *new std::map<std::string, void*>;
  return table;
}


}  // namespace

extern "C" {

aclError aclrtMalloc(void** address, size_t size, aclrtMemMallocPolicy policy) {
  return guarded("aclrtMalloc", [&] { allocate(address, size, policy); });
}

// The same without the 32 bytes that aclrtMalloc adds for over-reading kernels; rounding hides the difference.
aclError aclrtMallocAlign32(void** address, size_t size, aclrtMemMallocPolicy policy) {
  return guarded("aclrtMallocAlign32", [&] { allocate(address, size, policy); });
}

aclError aclrtMallocCached(void** address, size_t size, aclrtMemMallocPolicy policy) {
  return guarded("aclrtMallocCached", [&] { allocate(address, size, policy); });
}

aclError aclrtMallocWithCfg(void** address, size_t size, aclrtMemMallocPolicy policy, aclrtMallocConfig* cfg) {
  return guarded("aclrtMallocWithCfg", [&] { allocate(address, size, policy); });
}

aclError aclrtFree(void* address) {
  return guarded("aclrtFree", [&] { free_memory(address); });
}

aclError aclrtFreeWithDevSync(void* address) {
  return guarded("aclrtFreeWithDevSync", [&] {
    for (Stream* stream : current_device().streams()) stream->wait_until_idle();
    free_memory(address);
  });
}

aclError aclrtMallocHost(void** address, size_t size) {
  return guarded("aclrtMallocHost", [&] { give(address, "hostPtr", [&] { return allocate_pinned_memory(size); }); });
}

aclError aclrtMallocHostWithCfg(void** address, uint64_t size, aclrtMallocConfig* cfg) {
  return guarded("aclrtMallocHostWithCfg", [&] {
    give(address, "hostPtr", [&] { return allocate_pinned_memory(size); });
  });
}

aclError aclrtFreeHost(void* address) {
  return guarded("aclrtFreeHost", [&] {
    require_address(address, "hostPtr");
    free_pinned_memory(address);
  });
}

aclError aclrtHostRegister(void* address, uint64_t size, aclrtHostRegisterType type, void** device_address) {
  return guarded("aclrtHostRegister", [&] {
    if (type == ACL_HOST_REGISTER_MAPPED) {
      fail(ACL_ERROR_RT_FEATURE_NOT_SUPPORT, "mapping host memory into the device is not emulated.");
    }
    require_address(address, "ptr");
    register_host_memory(address, size);
  });
}

aclError aclrtHostRegisterV2(void* address, uint64_t size, uint32_t flag) {
  return guarded("aclrtHostRegisterV2", [&] {
    if ((flag & ACL_HOST_REG_MAPPED) != 0) {
      fail(ACL_ERROR_RT_FEATURE_NOT_SUPPORT, "mapping host memory into the device is not emulated.");
    }
    require_address(address, "ptr");
    register_host_memory(address, size);
  });
}

aclError aclrtHostUnregister(void* address) {
  return guarded("aclrtHostUnregister", [&] { unregister_host_memory(address); });
}

aclError aclrtPointerGetAttributes(const void* address, aclrtPtrAttributes* attributes) {
  return guarded("aclrtPointerGetAttributes", [&] {
    require_address(address, "ptr");
    require_address(attributes, "attributes");
    const MemoryOwner owner = owner_of(address);
    *attributes = {};
    attributes->location.id = static_cast<uint32_t>(owner.device);
    attributes->pageSize = 4096;
    switch (owner.kind) {
      case MemoryKind::kDevice: attributes->location.type = ACL_MEM_LOCATION_TYPE_DEVICE; break;
      case MemoryKind::kPinnedHost: attributes->location.type = ACL_MEM_LOCATION_TYPE_HOST; break;
      case MemoryKind::kUnregistered: attributes->location.type = ACL_MEM_LOCATION_TYPE_UNREGISTERED; break;
    }
  });
}

aclError aclrtGetMemInfo(aclrtMemAttr attribute, size_t* free, size_t* total) {
  return guarded("aclrtGetMemInfo", [&] {
    require_address(free, "free");
    require_address(total, "total");
    const Device& device = current_device();
    *total = static_cast<size_t>(device.memory_bytes());
    *free = static_cast<size_t>(device.memory_bytes() - device.used_bytes());
  });
}

aclError aclrtGetMemUsageInfo(int32_t id, aclrtMemUsageInfo* info, size_t capacity, size_t* count) {
  return guarded("aclrtGetMemUsageInfo", [&] {
    const Device& device = device_at(id);
    required(count, "outputNum") = 0;
    if (info == nullptr || capacity == 0) return;
    info[0] = {};
    std::snprintf(info[0].name, sizeof info[0].name, "RUNTIME");
    info[0].curMemSize = static_cast<uint64_t>(device.used_bytes());
    info[0].memPeakSize = static_cast<uint64_t>(device.peak_bytes());
    *count = 1;
  });
}

aclError aclrtReserveMemAddress(void** address, size_t size, size_t alignment, void* expected, uint64_t flags) {
  return guarded("aclrtReserveMemAddress", [&] {
    give(address, "virPtr", [&] { return reserve_range(size, alignment); });
  });
}

aclError aclrtReleaseMemAddress(void* address) {
  return guarded("aclrtReleaseMemAddress", [&] { release_range(address); });
}

aclError aclrtMallocPhysical(aclrtDrvMemHandle* handle, size_t size, const aclrtPhysicalMemProp* properties,
                             uint64_t flags) {
  return guarded("aclrtMallocPhysical", [&] {
    require_address(handle, "handle");
    if (required(properties, "prop").location.type != ACL_MEM_LOCATION_TYPE_DEVICE) {
      fail(ACL_ERROR_RT_FEATURE_NOT_SUPPORT, "physical memory of the host is not emulated.");
    }
    Device& device = device_at(static_cast<int>(properties->location.id));
    faults().check_allocation(device.chip_index());
    *handle = allocate_physical(device, size);
  });
}

aclError aclrtFreePhysical(aclrtDrvMemHandle handle) {
  return guarded("aclrtFreePhysical", [&] { free_physical(static_cast<PhysicalMemory*>(handle)); });
}

aclError aclrtMapMem(void* address, size_t size, size_t offset, aclrtDrvMemHandle handle, uint64_t flags) {
  return guarded("aclrtMapMem",
                 [&] { map_physical(address, size, offset, static_cast<PhysicalMemory*>(handle)); });
}

aclError aclrtUnmapMem(void* address) {
  return guarded("aclrtUnmapMem", [&] { unmap_physical(address); });
}

aclError aclrtMemGetAllocationGranularity(aclrtPhysicalMemProp* properties, aclrtMemGranularityOptions option,
                                          size_t* granularity) {
  return guarded("aclrtMemGetAllocationGranularity",
                 [&] { required(granularity, "granularity") = size_t{2} << 20; });
}

aclError aclrtIpcMemGetExportKey(void* address, size_t size, char* key, size_t capacity, uint64_t flags) {
  return guarded("aclrtIpcMemGetExportKey", [&] {
    require_address(key, "key");
    for (Stream* stream : current_device().streams()) stream->wait_until_idle();
    const std::string text = encode(share(address));
    if (text.size() >= capacity) {
      fail(kInvalidParam, "the key needs %zu bytes, %zu were given.", text.size() + 1, capacity);
    }
    std::memcpy(key, text.c_str(), text.size() + 1);
  });
}

aclError aclrtIpcMemImportByKey(void** address, const char* key, uint64_t flags) {
  return guarded("aclrtIpcMemImportByKey", [&] {
    give(address, "devPtr", [&] { return map_shared(current_device(), decode(key)); });
    std::lock_guard lock(g_imports_mutex);
    imports()[key] = *address;
  });
}

aclError aclrtIpcMemClose(const char* key) {
  return guarded("aclrtIpcMemClose", [&] {
    require_address(key, "key");
    std::lock_guard lock(g_imports_mutex);
    const auto found = imports().find(key);
    if (found == imports().end()) return;  // the exporter closes its key too: nothing of it is kept
    unmap_shared(found->second);
    imports().erase(found);
  });
}

// Any process of the same user may import; the list of allowed ones is not enforced.
aclError aclrtIpcMemSetImportPid(const char* key, int32_t* processes, size_t count) {
  return guarded("aclrtIpcMemSetImportPid", [&] { decode(key); });
}

}  // extern "C"
