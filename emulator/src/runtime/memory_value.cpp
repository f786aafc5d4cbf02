#include "runtime/memory_value.h"

#include <acl/acl.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>

#include "core/clock.h"
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

// Under a clock: when values were written, by address; under g_mutex. A bounded number of each, the latest last.
struct Write {
  uint64_t value;
  int64_t end_ns;
};
constexpr size_t kRememberedWrites = 64;

std::map<uintptr_t, std::deque<Write>>& writes() {
  static auto& instance = *new std::map<uintptr_t, std::deque<Write>>;
  return instance;
}

uintptr_t number(const void* address) {
  return reinterpret_cast<uintptr_t>(address);
}

void remember_write(void* address, uint64_t value) {
  auto& of_address = writes()[number(address)];
  of_address.push_back({value, Clock::timeline().end_ns()});
  if (of_address.size() > kRememberedWrites) of_address.pop_front();
}

// The modelled time since which the condition holds: that of the first of the latest writes that all satisfy it. 0 if
// something else than a write through this file put the value there.
int64_t holds_since_ns(void* address, uint64_t current, uint64_t value, uint32_t condition) {
  const auto found = writes().find(number(address));
  if (found == writes().end() || found->second.back().value != current) return 0;
  int64_t since_ns = 0;
  for (auto write = found->second.rbegin(); write != found->second.rend(); ++write) {
    if (!holds(write->value, value, condition)) break;
    since_ns = write->end_ns;
  }
  return since_ns;
}

class WriteTask : public ControlTask {
 public:
  WriteTask(void* address, uint64_t value) : address_(address), value_(value) {}
  const char* name() const override { return "ValueWrite"; }
  void run() override {
    std::lock_guard lock(g_mutex);
    value_at(address_).store(value_);
    if (Clock::models_time()) remember_write(address_, value_);
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
    uint64_t current;
    while (!holds(current = value_at(address_).load(), value_, condition_)) {
      if (stream.must_give_up()) return;
      g_written.wait_for(lock, kLookAround);
    }
    if (Clock::models_time()) Clock::timeline().reach(holds_since_ns(address_, current, value_, condition_));
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

void forget_written_values(const void* address, size_t size_bytes) {
  std::lock_guard lock(g_mutex);
  auto& table = writes();
  const uintptr_t begin = number(address);
  for (auto it = table.lower_bound(begin); it != table.end() && it->first - begin < size_bytes;) it = table.erase(it);
}

}  // namespace emulator
