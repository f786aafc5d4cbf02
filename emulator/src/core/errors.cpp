#include "core/errors.h"

#include <cstdio>
#include <new>

namespace emulator {
namespace {

std::string& recent_error() {
  thread_local std::string message;
  return message;
}

}  // namespace

void fail(aclError code, const char* format, ...) {
  char buffer[2048];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(buffer, sizeof buffer, format, arguments);
  va_end(arguments);
  throw Failure(code, buffer);
}

void set_recent_error(const std::string& message) {
  recent_error() = message;
}

aclError report_current_exception(const char* function) noexcept {
  aclError code = ACL_ERROR_INTERNAL_ERROR;
  std::string text;
  try {
    throw;
  } catch (const Failure& failure) {
    code = failure.code();
    text = failure.what();
  } catch (const std::bad_alloc&) {
    code = ACL_ERROR_BAD_ALLOC;
    text = "the host is out of memory";
  } catch (const std::exception& other) {
    text = other.what();
  } catch (...) {
    text = "unknown exception";
  }
  char prefixed[64];
  snprintf(prefixed, sizeof prefixed, "[Error %d] ", code);
  set_recent_error(prefixed + std::string(function) + ": " + text + "\n");
  return code;
}

}  // namespace emulator

// CANN hands the message over once: reading it empties it.
extern "C" const char* aclGetRecentErrMsg() {
  thread_local std::string handed_over;
  handed_over = std::move(emulator::recent_error());
  emulator::recent_error().clear();
  return handed_over.empty() ? nullptr : handed_over.c_str();
}
