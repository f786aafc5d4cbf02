// Modes that a program sets and CANN remembers. The emulator computes the same whatever they are, except where said.
#include <acl/acl.h>
#include <acl/error_codes/rt_error_codes.h>

#include <atomic>

#include "core/chips.h"
#include "core/errors.h"
#include "runtime/stream.h"

using namespace emulator;

namespace {

// Zero until set. torch_npu reads one before every operator, hence no lock.
std::atomic<int64_t> g_options[3];

std::atomic<int64_t>& option_value(aclSysParamOpt option) {
  if (option < ACL_OPT_DETERMINISTIC || option > ACL_OPT_STRONG_CONSISTENCY) {
    fail(kInvalidParam, "option %d is unknown.", option);
  }
  return g_options[option];
}

std::atomic<aclrtFloatOverflowMode> g_overflow_mode{ACL_RT_OVERFLOW_MODE_UNDEF};
std::atomic<uint64_t> g_execute_timeout_us{0};

}  // namespace

extern "C" {

aclError aclrtSetSysParamOpt(aclSysParamOpt option, int64_t value) {
  return guarded("aclrtSetSysParamOpt", [&] { option_value(option) = value; });
}

aclError aclrtGetSysParamOpt(aclSysParamOpt option, int64_t* value) {
  return guarded("aclrtGetSysParamOpt", [&] { give(value, "value", [&] { return option_value(option).load(); }); });
}

aclError aclrtCtxSetSysParamOpt(aclSysParamOpt option, int64_t value) {
  return guarded("aclrtCtxSetSysParamOpt", [&] { option_value(option) = value; });
}

aclError aclrtCtxGetSysParamOpt(aclSysParamOpt option, int64_t* value) {
  return guarded("aclrtCtxGetSysParamOpt", [&] { give(value, "value", [&] { return option_value(option).load(); }); });
}

// Kernels compute with IEEE infinities in either mode: saturation of the older chips is not emulated.
aclError aclrtSetDeviceSatMode(aclrtFloatOverflowMode mode) {
  return guarded("aclrtSetDeviceSatMode", [&] {
    if (mode == ACL_RT_OVERFLOW_MODE_INFNAN && !chip().has_bf16) {
      fail(ACL_ERROR_RT_FEATURE_NOT_SUPPORT, "%s saturates; it has no INF/NAN mode.", chip().name);
    }
    g_overflow_mode = mode;
  });
}

aclError aclrtGetDeviceSatMode(aclrtFloatOverflowMode* mode) {
  return guarded("aclrtGetDeviceSatMode", [&] { required(mode, "mode") = g_overflow_mode; });
}

aclError aclrtSetOpWaitTimeout(uint32_t timeout_s) {
  return ACL_SUCCESS;  // a wait that never ends shows as the time-out of the synchronization behind it
}

aclError aclrtSetOpExecuteTimeOut(uint32_t timeout_s) {
  g_execute_timeout_us = uint64_t{timeout_s} * 1000000;
  return ACL_SUCCESS;
}

aclError aclrtSetOpExecuteTimeOutV2(uint64_t timeout_us, uint64_t* actual_us) {
  g_execute_timeout_us = timeout_us;
  if (actual_us != nullptr) *actual_us = timeout_us;
  return ACL_SUCCESS;
}

aclError aclrtSetStreamFailureMode(aclrtStream handle, uint64_t mode) {
  return guarded("aclrtSetStreamFailureMode", [&] {
    if (mode != ACL_CONTINUE_ON_FAILURE && mode != ACL_STOP_ON_FAILURE) {
      fail(kInvalidParam, "mode must be 0 (continue) or 1 (stop), not %lu.", static_cast<unsigned long>(mode));
    }
    Stream::from_handle(handle).failure_mode = mode;
  });
}

aclError aclrtSetStreamOverflowSwitch(aclrtStream handle, uint32_t flag) {
  return guarded("aclrtSetStreamOverflowSwitch", [&] { Stream::from_handle(handle).overflow_switch = flag; });
}

aclError aclrtGetStreamOverflowSwitch(aclrtStream handle, uint32_t* flag) {
  return guarded("aclrtGetStreamOverflowSwitch", [&] {
    give(flag, "flag", [&] { return Stream::from_handle(handle).overflow_switch.load(); });
  });
}

aclError aclrtSetStreamAttribute(aclrtStream handle, aclrtStreamAttr attribute, aclrtStreamAttrValue* value) {
  return guarded("aclrtSetStreamAttribute", [&] {
    require_address(value, "value");
    Stream& stream = Stream::from_handle(handle);
    switch (attribute) {
      case ACL_STREAM_ATTR_FAILURE_MODE: stream.failure_mode = value->failureMode; break;
      case ACL_STREAM_ATTR_FLOAT_OVERFLOW_CHECK: stream.overflow_switch = value->overflowSwitch; break;
      case ACL_STREAM_ATTR_USER_CUSTOM_TAG: break;  // for CANN's logs
      case ACL_STREAM_ATTR_CACHE_OP_INFO: break;    // shapes in aclmdlRIDebugJsonPrint, which names operators only
      default: fail(kInvalidParam, "stream attribute %d is unknown.", attribute);
    }
  });
}

aclError aclrtGetStreamAttribute(aclrtStream handle, aclrtStreamAttr attribute, aclrtStreamAttrValue* value) {
  return guarded("aclrtGetStreamAttribute", [&] {
    require_address(value, "value");
    Stream& stream = Stream::from_handle(handle);
    switch (attribute) {
      case ACL_STREAM_ATTR_FAILURE_MODE: value->failureMode = stream.failure_mode; break;
      case ACL_STREAM_ATTR_FLOAT_OVERFLOW_CHECK: value->overflowSwitch = stream.overflow_switch; break;
      default: fail(kInvalidParam, "stream attribute %d cannot be read.", attribute);
    }
  });
}

}  // extern "C"
