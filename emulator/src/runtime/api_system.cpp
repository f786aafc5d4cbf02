// aclInit and what a program may ask of CANN itself: versions, attributes, logs, the last error.
#include <acl/acl.h>
#include <acl/error_codes/rt_error_codes.h>
#include <sys/prctl.h>

#include <algorithm>
#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "core/chips.h"
#include "core/config.h"
#include "core/errors.h"
#include "core/json.h"
#include "core/stats.h"
#include "runtime/device.h"

using namespace emulator;

namespace {

// kCannVersion: the version that every library of the emulator follows when it decides which functions to export.
#include "cann_version.inc"
// Of the line that CANN 9's guide names. From 26.0 on torch_npu pins host memory by aclrtMallocHostWithCfg.
constexpr const char* kDriverVersion = "25.5.0";

// The thread that calls aclInit goes on to start torch_npu's release_thread, which looks for work every microsecond for
// the life of the process. With Linux's timer slack of 50 us that takes an eighth of a core of an idle process; threads
// inherit their creator's slack.
constexpr unsigned long kTimerSlackNs = 1'000'000;

std::atomic<int> g_init_count{0};

void copy_part(char* target, size_t size, const std::string& text) {
  std::snprintf(target, size, "%s", text.c_str());
}

// {"defaultDevice": {"default_device": "0"}}: the device of threads that set none.
int default_device_of(const char* config_path) {
  if (config_path == nullptr || *config_path == '\0') return -1;
  const Json document = Json::parse_file(config_path);
  const Json* section = document.find("defaultDevice");
  const Json* id = section == nullptr ? nullptr : section->find("default_device");
  return id == nullptr ? -1 : std::atoi(id->string().c_str());
}

}  // namespace

extern "C" {

aclError aclInit(const char* config_path) {
  return guarded("aclInit", [&] {
    chip();  // a wrong environment is reported here, not at the first operator
    write_stats_at_exit();
    if (g_init_count.fetch_add(1) > 0) {
      fail(ACL_ERROR_REPEAT_INITIALIZE, "aclInit was already called in this process.");
    }
    set_default_device(default_device_of(config_path));
    prctl(PR_SET_TIMERSLACK, kTimerSlackNs);
  });
}

aclError aclFinalize() {
  return guarded("aclFinalize", [] {
    if (g_init_count.exchange(0) == 0) fail(ACL_ERROR_UNINITIALIZE, "aclInit was not called.");
    set_default_device(-1);
  });
}

aclError aclrtGetVersion(int32_t* major, int32_t* minor, int32_t* patch) {
  return guarded("aclrtGetVersion", [&] {
    required(major, "majorVersion") = ACL_MAJOR_VERSION;
    required(minor, "minorVersion") = ACL_MINOR_VERSION;
    required(patch, "patchVersion") = ACL_PATCH_VERSION;
  });
}

aclError aclsysGetCANNVersion(aclCANNPackageName name, aclCANNPackageVersion* version) {
  return guarded("aclsysGetCANNVersion", [&] {
    require_address(version, "version");
    *version = {};
    const std::string text = name == ACL_PKG_NAME_DRIVER ? kDriverVersion : kCannVersion;
    const size_t first = text.find('.');
    const size_t second = text.find('.', first + 1);
    copy_part(version->version, sizeof version->version, text);
    copy_part(version->majorVersion, sizeof version->majorVersion, text.substr(0, first));
    copy_part(version->minorVersion, sizeof version->minorVersion, text.substr(first + 1, second - first - 1));
    copy_part(version->releaseVersion, sizeof version->releaseVersion, text.substr(second + 1));
  });
}

const char* aclrtGetSocName() {
  try {
    return chip().soc_version;
  } catch (...) {
    report_current_exception("aclrtGetSocName");
    return nullptr;
  }
}

aclError aclGetCannAttributeList(const aclCannAttr** attributes, size_t* count) {
  return guarded("aclGetCannAttributeList", [&] {
    static const aclCannAttr kWithBf16[] = {ACL_CANN_ATTR_INF_NAN, ACL_CANN_ATTR_BF16, ACL_CANN_ATTR_JIT_COMPILE};
    static const aclCannAttr kWithoutBf16[] = {ACL_CANN_ATTR_JIT_COMPILE};
    require_address(count, "num");
    give(attributes, "cannAttrList", [&] { return chip().has_bf16 ? kWithBf16 : kWithoutBf16; });
    *count = chip().has_bf16 ? 3 : 1;
  });
}

// INF_NAN and BF16 came to the family together with the 910B; JIT_COMPILE says that the mode can be set.
aclError aclGetCannAttribute(aclCannAttr attribute, int32_t* value) {
  return guarded("aclGetCannAttribute", [&] {
    require_address(value, "value");
    switch (attribute) {
      case ACL_CANN_ATTR_INF_NAN:
      case ACL_CANN_ATTR_BF16:
        *value = chip().has_bf16 ? 1 : 0;
        break;
      case ACL_CANN_ATTR_JIT_COMPILE:
        *value = 1;
        break;
      default:
        fail(ACL_ERROR_INVALID_PARAM, "attribute %d is unknown.", attribute);
    }
  });
}

// ASCEND_GLOBAL_LOG_LEVEL as CANN reads it: 0 debug, 1 info, 2 warning, 3 error (the default), 4 none.
void aclAppLog(aclLogLevel level, const char* function, const char* file, uint32_t line, const char* format, ...) {
  static const int threshold = [] {
    const char* value = std::getenv("ASCEND_GLOBAL_LOG_LEVEL");
    return value == nullptr ? static_cast<int>(ACL_ERROR) : std::atoi(value);
  }();
  static const bool to_stdout = [] {
    const char* value = std::getenv("ASCEND_SLOG_PRINT_TO_STDOUT");
    return value != nullptr && std::strcmp(value, "1") == 0;
  }();
  if (static_cast<int>(level) < threshold || !to_stdout || format == nullptr) return;
  static const char* const kNames[] = {"DEBUG", "INFO", "WARNING", "ERROR"};
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  std::printf("[%s] APP %s:%u %s: %s\n", kNames[std::clamp<int>(level, ACL_DEBUG, ACL_ERROR)],
              file == nullptr ? "" : file, line,
              function == nullptr ? "" : function, text);
}

aclError aclrtPeekAtLastError(aclrtLastErrLevel level) {
  Device* device = current_device_or_null();
  return device == nullptr ? ACL_SUCCESS : device->failure_code();
}

aclError aclrtGetLastError(aclrtLastErrLevel level) {
  return aclrtPeekAtLastError(level);  // asynchronous failures of a device are cleared by its reset only
}

}  // extern "C"
