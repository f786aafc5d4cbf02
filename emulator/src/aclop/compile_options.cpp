// Compile options: remembered, and answered. Nothing is compiled here; the one option with an effect is JIT_COMPILE,
// from which torch_npu takes its default dispatch (aclop if enabled, aclnn if disabled). A real 310P compiles operators
// on first use unless told otherwise; the emulator has no operator compiler and answers "disable" on every chip, so
// that programs which never set the mode run here too, through the prebuilt (aclnn) operators.
#include <acl/acl_op_compiler.h>

#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "core/errors.h"

using namespace emulator;

namespace {

std::mutex g_mutex;

std::map<aclCompileOpt, std::string>& options() {
  static auto& values = *new std::map<aclCompileOpt, std::string>{{ACL_OP_JIT_COMPILE, "disable"}};
  return values;
}

std::string option(aclCompileOpt key) {
  std::lock_guard lock(g_mutex);
  const auto found = options().find(key);
  return found == options().end() ? "" : found->second;
}

}  // namespace

extern "C" {

aclError aclSetCompileopt(aclCompileOpt key, const char* value) {
  return guarded("aclSetCompileopt", [&] {
    if (value == nullptr) fail(ACL_ERROR_INVALID_PARAM, "the value of option %d is null.", key);
    if (key == ACL_OP_JIT_COMPILE && strcmp(value, "enable") != 0 && strcmp(value, "disable") != 0) {
      fail(ACL_ERROR_INVALID_PARAM, "ACL_OP_JIT_COMPILE must be enable or disable, not %s.", value);
    }
    std::lock_guard lock(g_mutex);
    options()[key] = value;
  });
}

size_t aclGetCompileoptSize(aclCompileOpt key) { return option(key).size() + 1; }

aclError aclGetCompileopt(aclCompileOpt key, char* value, size_t length) {
  return guarded("aclGetCompileopt", [&] {
    const std::string text = option(key);
    if (value == nullptr || length < text.size() + 1) {
      fail(ACL_ERROR_INVALID_PARAM, "the buffer for option %d must hold %zu bytes.", key, text.size() + 1);
    }
    std::memcpy(value, text.c_str(), text.size() + 1);
  });
}

}  // extern "C"
