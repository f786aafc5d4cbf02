// How a failure travels: kernels and runtime code throw Failure; the C functions turn it into a code and a message.
#pragma once

#include <acl/acl.h>

#include <cstdarg>
#include <exception>
#include <string>

#include "core/fork.h"

namespace emulator {

// Codes of the runtime and of aclnn that CANN's public headers name only in part; values from hicann/runtime.
inline constexpr aclError kParamNullptr = 161001;     // ACLNN_ERR_PARAM_NULLPTR
inline constexpr aclError kParamInvalid = 161002;     // ACLNN_ERR_PARAM_INVALID
inline constexpr aclError kRuntimeError = 361001;     // ACLNN_ERR_RUNTIME_ERROR
inline constexpr aclError kInnerError = 561000;       // ACLNN_ERR_INNER
inline constexpr aclError kInnerTilingError = 561002; // ACLNN_ERR_INNER_TILING_ERROR
inline constexpr aclError kInnerNullptr = 561103;     // ACLNN_ERR_INNER_NULLPTR
inline constexpr aclError kMemoryAllocation = 207001; // ACL_ERROR_RT_MEMORY_ALLOCATION
inline constexpr aclError kContextNull = 107002;      // ACL_ERROR_RT_CONTEXT_NULL
inline constexpr aclError kInvalidParam = 107000;     // ACL_ERROR_RT_PARAM_INVALID
inline constexpr aclError kAicoreTimeout = 507014;    // ACL_ERROR_RT_AICORE_TIMEOUT
inline constexpr aclError kAicoreException = 507015;  // ACL_ERROR_RT_AICORE_EXCEPTION
inline constexpr aclError kAicpuException = 507018;   // ACL_ERROR_RT_AICPU_EXCEPTION

// An error with CANN's code and a message whose first clause names the function and the broken rule.
class Failure : public std::exception {
 public:
  Failure(aclError code, std::string message) : code_(code), message_(std::move(message)) {}
  aclError code() const { return code_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  aclError code_;
  std::string message_;
};

// printf into a Failure.
[[noreturn]] void fail(aclError code, const char* format, ...) __attribute__((format(printf, 2, 3)));

// The caller's variable behind a pointer; CANN answers null with 100000. `name` is the parameter's, as in its headers.
template <typename Value>
Value& required(Value* pointer, const char* name) {
  if (pointer == nullptr) fail(ACL_ERROR_INVALID_PARAM, "%s must not be null.", name);
  return *pointer;
}
// The result of make() in it; nothing is made for null.
template <typename Value, typename Make>
void give(Value* pointer, const char* name, Make&& make) {
  required(pointer, name);
  *pointer = make();
}
inline void require_address(const void* address, const char* name) {
  if (address == nullptr) fail(ACL_ERROR_INVALID_PARAM, "%s must not be null.", name);
}

// What aclGetRecentErrMsg returns to the calling thread.
void set_recent_error(const std::string& message);

// The code of the exception in flight; records its message for aclGetRecentErrMsg. Call inside a catch block only.
aclError report_current_exception(const char* function) noexcept;

// Runs body, giving ACL_SUCCESS or the code of what it threw: the one shape of every exported function.
template <typename Body>
aclError guarded(const char* function, Body&& body) noexcept {
  try {
    refuse_after_fork();
    body();
    return ACL_SUCCESS;
  } catch (...) {
    return report_current_exception(function);
  }
}

}  // namespace emulator
