// HCCL's result codes in words.
#include "hccl/errors.h"

#include <cstdio>
#include <exception>

namespace emulator {

HcclResult hccl_result_of(aclError code) {
  if (code >= 0 && code < HCCL_E_RESERVED) return static_cast<HcclResult>(code);
  switch (code) {
    case ACL_ERROR_RT_FFTS_PLUS_TIMEOUT:
    case ACL_ERROR_RT_WAIT_TIMEOUT: return HCCL_E_TIMEOUT;
    case ACL_ERROR_RT_SUSPECT_REMOTE_ERROR: return HCCL_E_REMOTE;
    case ACL_ERROR_INVALID_PARAM: return HCCL_E_PARA;
    default: return HCCL_E_RUNTIME;
  }
}

HcclResult report_hccl_failure(const char* function) noexcept {
  HcclResult result = HCCL_E_INTERNAL;
  try {
    throw;
  } catch (const Failure& failure) {
    result = hccl_result_of(failure.code());
    fprintf(stderr, "[ERROR] [HCCL] %s: %s (%s)\n", function, failure.what(), HcclGetErrorString(result));
  } catch (const std::exception& other) {
    fprintf(stderr, "[ERROR] [HCCL] %s: %s\n", function, other.what());
  }
  report_current_exception(function);
  return result;
}

}  // namespace emulator

extern "C" const char* HcclGetErrorString(HcclResult code) {
  switch (code) {
    case HCCL_SUCCESS: return "no error";
    case HCCL_E_PARA: return "parameter error";
    case HCCL_E_PTR: return "null pointer";
    case HCCL_E_MEMORY: return "memory error";
    case HCCL_E_INTERNAL: return "internal error";
    case HCCL_E_NOT_SUPPORT: return "not supported";
    case HCCL_E_NOT_FOUND: return "resource not found";
    case HCCL_E_UNAVAIL: return "resource unavailable";
    case HCCL_E_SYSCALL: return "system call error";
    case HCCL_E_TIMEOUT: return "timeout";
    case HCCL_E_REMOTE: return "remote error";
    case HCCL_E_SUSPENDING: return "communicator is suspending";
    default: return "unknown error";
  }
}
