// One emulated chip as this process sees it: its memory budget, its health, and the contexts and streams on it.
#pragma once

#include <acl/acl.h>

#include <atomic>
#include <mutex>
#include <string>
#include <vector>

#include "core/chips.h"
#include "core/errors.h"
#include "runtime/memory_registry.h"

namespace emulator {

class Stream;
class Device;

// What aclrtSetCurrentContext takes. Every device has a primary one, which aclrtSetDevice makes current. A destroyed
// one keeps its few bytes: it may be the current one of other threads, whose next call is refused.
struct Context {
  Device* device = nullptr;
  std::atomic<bool> is_alive{true};

  static Context& create(Device& device);
  static Context& from_handle(aclrtContext handle);  // throws Failure(107002)
  static void destroy(aclrtContext handle);          // not of a primary one
};

class Device {
 public:
  Device(int id, int chip_index);

  int id() const { return id_; }                  // logical: what the program says
  int chip_index() const { return chip_index_; }  // position in the machine, before ASCEND_RT_VISIBLE_DEVICES
  Context* primary_context() { return &primary_; }

  // Memory. charge() throws Failure(207001) when the chip is full.
  int64_t memory_bytes() const { return memory_bytes_; }
  int64_t used_bytes() const { return used_bytes_.load(std::memory_order_relaxed); }
  int64_t peak_bytes() const { return peak_bytes_.load(std::memory_order_relaxed); }
  void charge(int64_t size_bytes);
  void discharge(int64_t size_bytes);
  void reset_peak() { peak_bytes_.store(used_bytes()); }

  // Health. An asynchronous failure stays until the device is reset; every later call on the device reports it.
  void report_failure(aclError code, const std::string& message);
  bool has_failed() const { return failure_code_.load(std::memory_order_acquire) != ACL_SUCCESS; }
  void throw_if_failed() const {
    if (has_failed()) throw_failure();
  }
  aclError failure_code() const { return failure_code_.load(std::memory_order_acquire); }
  void clear_failure();

  Stream& default_stream();
  Stream* create_stream(uint32_t priority, uint32_t flags);  // throws Failure(207008) beyond the chip's limit
  void forget_stream(Stream* stream);
  std::vector<Stream*> streams() const;

  // Streams, events and notifies that captured graphs hold on the chip until they are destroyed.
  struct Budget {
    int streams = 0;
    int events = 0;
    int notifies = 0;
  };
  void reserve(const Budget& wanted);  // throws Failure(207007..207009)
  void release(const Budget& held);
  Budget reserved() const;

  std::atomic<int> set_count{0};  // aclrtSetDevice minus aclrtResetDevice

 private:
  [[noreturn]] void throw_failure() const;

  const int id_;
  const int chip_index_;
  const int64_t memory_bytes_;
  Context primary_;
  std::atomic<int64_t> used_bytes_{0};
  std::atomic<int64_t> peak_bytes_{0};
  MemoryRegistry registry_{chip_index_};
  std::atomic<aclError> failure_code_{ACL_SUCCESS};
  std::string failure_message_;
  mutable std::mutex mutex_;
  std::vector<Stream*> streams_;
  Stream* default_stream_ = nullptr;
  Budget reserved_;
};

int device_count();
Device& device_at(int id);        // throws Failure(107001)
Device* current_device_or_null();  // also null if the thread's context was destroyed
// The thread's device; a thread that set none gets the default one if aclInit was given one (torch_npu does), and
// Failure(107002) otherwise.
Device& current_device();
Context& current_context();  // throws as current_device()
void set_current_context(Context* context);

void set_default_device(int id);  // -1: none
int default_device();

}  // namespace emulator
