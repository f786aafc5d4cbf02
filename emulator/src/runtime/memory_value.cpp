#include "runtime/memory_value.h"

#include <acl/acl.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>

#include "core/errors.h"
#include "core/tensor.h"
#include "runtime/device.h"
#include "runtime/stream.h"

namespace emulator {
namespace {

// Writers through this file wake the waiters; a kernel or copy that writes the value is seen at the next look.
std::mutex g_mutex;
std::condition_variable g_written;
constexpr auto kLookAround = std::chrono::milliseconds(1);

std::atomic_ref<uint64_t> value_at(void* address) {
  return std::atomic_ref<uint64_t>(*static_cast<uint64_t*>(host_address(address)));
}

bool holds(uint64_t current, uint64_t value, uint32_t condition) {
  switch (condition) {
    case ACL_STREAM_WAIT_VALUE_GEQ: return static_cast<int64_t>(current - value) >= 0;
    case ACL_STREAM_WAIT_VALUE_EQ: return current == value;
    case ACL_STREAM_WAIT_VALUE_AND: return (current & value) != 0;
    case ACL_STREAM_WAIT_VALUE_NOR: return ~(current | value) != 0;
  }
  fail(kInvalidParam, "condition %u is unknown.", condition);
}

class WriteTask : public ControlTask {
 public:
  WriteTask(void* address, uint64_t value) : address_(address), value_(value) {}
  const char* name() const override { return "ValueWrite"; }
  void run() override {
    std::lock_guard lock(g_mutex);
    value_at(address_).store(value_);
    g_written.notify_all();
  }

 private:
  void* address_;
  uint64_t value_;
};

class WaitTask : public ControlTask {
 public:
  WaitTask(void* address, uint64_t value, uint32_t condition)
      : address_(address), value_(value), condition_(condition) {}
  const char* name() const override { return "ValueWait"; }
  void run() override {
    const Stream& stream = Stream::running();
    std::unique_lock lock(g_mutex);
    while (!holds(value_at(address_).load(), value_, condition_)) {
      if (stream.is_aborting() || stream.device().has_failed()) return;
      g_written.wait_for(lock, kLookAround);
    }
  }

 private:
  void* address_;
  uint64_t value_;
  uint32_t condition_;
};

}  // namespace

void write_value(Stream& stream, void* address, uint64_t value) {
  stream.append(std::make_shared<WriteTask>(address, value));
}

void wait_for_value(Stream& stream, void* address, uint64_t value, uint32_t condition) {
  holds(0, value, condition);  // refuses an unknown condition here rather than on the stream
  stream.append(std::make_shared<WaitTask>(address, value, condition));
}

}  // namespace emulator
