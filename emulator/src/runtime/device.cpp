#include "runtime/device.h"

#include <acl/error_codes/rt_error_codes.h>

#include <algorithm>
#include <memory>
#include <set>

#include "core/config.h"
#include "runtime/stream.h"

namespace emulator {
namespace {

thread_local Context* t_context = nullptr;
std::atomic<int> g_default_device{-1};

std::vector<std::unique_ptr<Device>>& all_devices() {
  static auto& devices = *[] {
    auto* result = new std::vector<std::unique_ptr<Device>>;  // never destroyed: stream threads use them at exit
    for (int chip_index : config().visible_chips) {
      result->push_back(std::make_unique<Device>(static_cast<int>(result->size()), chip_index));
    }
    return result;
  }();
  return devices;
}

int64_t memory_of(int chip_index) {
  if (config().memory_bytes != 0) return config().memory_bytes;
  const int position = chip_index % chip().chips_per_card;
  return chip().memory_bytes[std::min(position, 1)];
}

void add_context(const Context* context);

}  // namespace

Device::Device(int id, int chip_index) : id_(id), chip_index_(chip_index), memory_bytes_(memory_of(chip_index)) {
  primary_.device = this;
  add_context(&primary_);
}

void Device::charge(int64_t size_bytes) {
  const int64_t before = used_bytes_.fetch_add(size_bytes, std::memory_order_relaxed);
  if (before + size_bytes > memory_bytes_) {
    used_bytes_.fetch_sub(size_bytes, std::memory_order_relaxed);
    fail(kMemoryAllocation, "Device %d is out of memory: %ld bytes were asked for, %ld of %ld are free.", id_,
         static_cast<long>(size_bytes), static_cast<long>(memory_bytes_ - before), static_cast<long>(memory_bytes_));
  }
  int64_t peak = peak_bytes_.load(std::memory_order_relaxed);
  while (before + size_bytes > peak && !peak_bytes_.compare_exchange_weak(peak, before + size_bytes)) {
  }
  registry_.add(size_bytes);
}

void Device::discharge(int64_t size_bytes) {
  used_bytes_.fetch_sub(size_bytes, std::memory_order_relaxed);
  registry_.add(-size_bytes);
}

void Device::report_failure(aclError code, const std::string& message) {
  {
    std::lock_guard lock(mutex_);
    if (has_failed()) return;  // the first failure is the cause; what follows are consequences
    failure_message_ = message;
    failure_code_.store(code);
  }
  for (Stream* stream : streams()) stream->announce_progress();
}

void Device::throw_failure() const {
  std::lock_guard lock(mutex_);
  throw Failure(failure_code(), failure_message_);
}

void Device::clear_failure() {
  std::lock_guard lock(mutex_);
  failure_code_.store(ACL_SUCCESS);
  failure_message_.clear();
}

Stream& Device::default_stream() {
  std::lock_guard lock(mutex_);
  if (default_stream_ == nullptr) {
    default_stream_ = new Stream(*this, 0, 0);
    streams_.push_back(default_stream_);
  }
  return *default_stream_;
}

Stream* Device::create_stream(uint32_t priority, uint32_t flags) {
  std::lock_guard lock(mutex_);
  const int held = static_cast<int>(streams_.size()) + reserved_.streams;
  if (held >= chip().max_streams) {
    fail(ACL_ERROR_RT_NO_STREAM_RESOURCE,
         "Device %d has no stream left: %s has %d, of which captured graphs hold %d.", id_, chip().name,
         chip().max_streams, reserved_.streams);
  }
  auto* stream = new Stream(*this, priority, flags);
  streams_.push_back(stream);
  return stream;
}

void Device::forget_stream(Stream* stream) {
  std::lock_guard lock(mutex_);
  std::erase(streams_, stream);
  if (default_stream_ == stream) default_stream_ = nullptr;
}

std::vector<Stream*> Device::streams() const {
  std::lock_guard lock(mutex_);
  return streams_;
}

void Device::reserve(const Budget& wanted) {
  std::lock_guard lock(mutex_);
  const int streams = static_cast<int>(streams_.size()) + reserved_.streams + wanted.streams;
  if (streams > chip().max_streams) {
    fail(ACL_ERROR_RT_NO_STREAM_RESOURCE, "Device %d has no stream left for graph capture: %s has %d.", id_,
         chip().name, chip().max_streams);
  }
  if (reserved_.events + wanted.events > chip().max_events) {
    fail(ACL_ERROR_RT_NO_EVENT_RESOURCE, "Device %d has no event left for graph capture: %s has %d.", id_,
         chip().name, chip().max_events);
  }
  if (reserved_.notifies + wanted.notifies > chip().max_notifies) {
    fail(ACL_ERROR_RT_NO_NOTIFY_RESOURCE, "Device %d has no notify left for graph capture: %s has %d.", id_,
         chip().name, chip().max_notifies);
  }
  reserved_.streams += wanted.streams;
  reserved_.events += wanted.events;
  reserved_.notifies += wanted.notifies;
}

void Device::release(const Budget& held) {
  std::lock_guard lock(mutex_);
  reserved_.streams -= held.streams;
  reserved_.events -= held.events;
  reserved_.notifies -= held.notifies;
}

Device::Budget Device::reserved() const {
  std::lock_guard lock(mutex_);
  return reserved_;
}

int device_count() {
  return static_cast<int>(all_devices().size());
}

Device& device_at(int id) {
  if (id < 0 || id >= device_count()) {
    fail(ACL_ERROR_RT_INVALID_DEVICEID, "Device %d does not exist: this process sees %d.", id, device_count());
  }
  return *all_devices()[id];
}

namespace {

// Contexts that can be named, primary ones included.
struct Contexts {
  std::mutex mutex;
  std::set<const void*> alive;
};

Contexts& contexts() {
  static auto& instance = *new Contexts;
  return instance;
}

void add_context(const Context* context) {
  std::lock_guard lock(contexts().mutex);
  contexts().alive.insert(context);
}

}  // namespace

Context& Context::create(Device& device) {
  auto* context = new Context{.device = &device};
  add_context(context);
  return *context;
}

Context& Context::from_handle(aclrtContext handle) {
  require_address(handle, "context");
  std::lock_guard lock(contexts().mutex);
  if (contexts().alive.count(handle) == 0) {
    fail(kContextNull, "The context %p does not exist: it was destroyed or never created.", handle);
  }
  return *static_cast<Context*>(handle);
}

void Context::destroy(aclrtContext handle) {
  Context& context = from_handle(handle);
  if (&context == context.device->primary_context()) {
    fail(kInvalidParam, "the primary context of a device cannot be destroyed; aclrtResetDevice does so.");
  }
  std::lock_guard lock(contexts().mutex);
  contexts().alive.erase(&context);
  context.is_alive = false;
}

void set_current_context(Context* context) {
  t_context = context;
}

Device* current_device_or_null() {
  return t_context == nullptr || !t_context->is_alive ? nullptr : t_context->device;
}

Context& current_context() {
  if (t_context == nullptr) {
    const int id = default_device();
    if (id < 0) fail(kContextNull, "This thread has no device: call aclrtSetDevice first.");
    Device& device = device_at(id);
    note_device_use();
    ++device.set_count;
    t_context = device.primary_context();
  }
  if (!t_context->is_alive) fail(kContextNull, "The context of this thread was destroyed: set another.");
  return *t_context;
}

Device& current_device() {
  return *current_context().device;
}

void set_default_device(int id) {
  g_default_device = id;
}

int default_device() {
  return g_default_device;
}

}  // namespace emulator
