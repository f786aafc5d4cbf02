// Functions that torch_npu links to and that need real hardware, its compiler or its tools: refused by name.
#include <acl/acl.h>
#include <acl/acl_dump.h>

#include <chrono>
#include <string_view>

#include "core/errors.h"

using namespace emulator;

namespace {

aclError unsupported(const char* function, const char* reason) {
  return guarded(function, [&] { fail(ACL_ERROR_FEATURE_UNSUPPORTED, "not emulated: %s.", reason); });
}

constexpr const char* kNoBinaries = "kernels compiled for the chip cannot run on the CPU";
constexpr const char* kNoDump = "dumping of operator inputs and outputs";

}  // namespace

extern "C" {

aclError aclmdlInitDump() { return unsupported("aclmdlInitDump", kNoDump); }
aclError aclmdlSetDump(const char* path) { return unsupported("aclmdlSetDump", kNoDump); }
aclError aclmdlFinalizeDump() { return unsupported("aclmdlFinalizeDump", kNoDump); }

aclError aclrtBinaryLoadFromData(const void* data, size_t length, const aclrtBinaryLoadOptions* options,
                                 aclrtBinHandle* handle) {
  return unsupported("aclrtBinaryLoadFromData", kNoBinaries);
}
aclError aclrtBinaryGetFunction(const aclrtBinHandle handle, const char* name, aclrtFuncHandle* function) {
  return unsupported("aclrtBinaryGetFunction", kNoBinaries);
}
aclError aclrtGetFunctionAddr(aclrtFuncHandle function, void** cube_address, void** vector_address) {
  return unsupported("aclrtGetFunctionAddr", kNoBinaries);
}
aclError aclrtLaunchKernelWithHostArgs(aclrtFuncHandle function, uint32_t blocks, aclrtStream stream,
                                       aclrtLaunchKernelCfg* configuration, void* arguments, size_t size,
                                       aclrtPlaceHolderInfo* place_holders, size_t place_holder_count) {
  return unsupported("aclrtLaunchKernelWithHostArgs", kNoBinaries);
}

aclError aclrtMemExportToShareableHandle(aclrtDrvMemHandle handle, aclrtMemHandleType type, uint64_t flags,
                                         uint64_t* shareable) {
  return unsupported("aclrtMemExportToShareableHandle", "share expandable segments; use aclrtIpcMemGetExportKey");
}
aclError aclrtMemImportFromShareableHandle(uint64_t shareable, int32_t device, aclrtDrvMemHandle* handle) {
  return unsupported("aclrtMemImportFromShareableHandle", "share expandable segments; use aclrtIpcMemImportByKey");
}
aclError aclrtMemSetPidToShareableHandle(uint64_t shareable, int32_t* processes, size_t count) {
  return unsupported("aclrtMemSetPidToShareableHandle", "share expandable segments; use aclrtIpcMemSetImportPid");
}

// libruntime's older interface, of the same purpose.
int32_t rtDevBinaryRegister(const void* binary, void** handle) {
  return unsupported("rtDevBinaryRegister", kNoBinaries);
}
int32_t rtFunctionRegister(void* handle, const void* stub, const char* name, const void* info, uint32_t mode) {
  return unsupported("rtFunctionRegister", kNoBinaries);
}
int32_t rtKernelLaunch(const void* stub, uint32_t blocks, void* arguments, uint32_t size, void* description,
                       void* stream) {
  return unsupported("rtKernelLaunch", kNoBinaries);
}
int32_t rtGetC2cCtrlAddr(uint64_t* address, uint32_t* length) {
  return unsupported("rtGetC2cCtrlAddr", "synchronization between cores");
}

// libprofapi: with no profiler attached CANN drops reports and succeeds, and none can attach here.
int32_t MsprofRegisterCallback(uint32_t module, void* callback) { return 0; }
int32_t MsprofReportApi(uint32_t aging, const void* data) { return 0; }
int32_t MsprofReportCompactInfo(uint32_t aging, const void* data, uint32_t length) { return 0; }
int32_t MsprofReportAdditionalInfo(uint32_t aging, const void* data, uint32_t length) { return 0; }
uint64_t MsprofGetHashId(const char* text, size_t length) {
  return text == nullptr ? 0 : std::hash<std::string_view>{}({text, length});
}
uint64_t MsprofSysCycleTime() {
  return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}

}  // extern "C"
