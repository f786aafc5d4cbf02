// Copies and fills.
#include <acl/acl.h>
#include <acl/error_codes/rt_error_codes.h>

#include <cstring>
#include <memory>
#include <vector>

#include "core/clock.h"
#include "core/cost.h"
#include "core/errors.h"
#include "core/faults.h"
#include "core/memory.h"
#include "core/stats.h"
#include "core/tensor.h"
#include "runtime/allocations.h"
#include "runtime/capture.h"
#include "runtime/device.h"
#include "runtime/stream.h"

using namespace emulator;

namespace {

struct CopyPlan {
  int chip;
  void* target;
  const void* source;
  size_t size_bytes;
  Direction direction;
};

Direction direction_of(int kind, const void* target, const void* source) {
  switch (kind) {
    case ACL_MEMCPY_HOST_TO_HOST: return Direction::kHostToHost;
    case ACL_MEMCPY_HOST_TO_DEVICE:
    case ACL_MEMCPY_HOST_TO_BUF_TO_DEVICE: return Direction::kHostToDevice;
    case ACL_MEMCPY_DEVICE_TO_HOST: return Direction::kDeviceToHost;
    case ACL_MEMCPY_DEVICE_TO_DEVICE:
    case ACL_MEMCPY_INNER_DEVICE_TO_DEVICE:
    case ACL_MEMCPY_INTER_DEVICE_TO_DEVICE: return Direction::kDeviceToDevice;
    case ACL_MEMCPY_DEFAULT:
      if (is_device_address(target)) {
        return is_device_address(source) ? Direction::kDeviceToDevice : Direction::kHostToDevice;
      }
      return is_device_address(source) ? Direction::kDeviceToHost : Direction::kHostToHost;
  }
  fail(kInvalidParam, "copy kind %d is unknown.", kind);
}

CopyPlan plan_copy(void* target, size_t capacity, const void* source, size_t size_bytes,
                   int kind) {
  require_address(target, "dst");
  require_address(source, "src");
  if (size_bytes > capacity) {
    fail(kInvalidParam, "%zu bytes do not fit into the destination of %zu.", size_bytes, capacity);
  }
  const CopyPlan plan{current_device().chip_index(), target, source, size_bytes, direction_of(kind, target, source)};
  const bool to_device = plan.direction == Direction::kHostToDevice || plan.direction == Direction::kDeviceToDevice;
  const bool from_device = plan.direction == Direction::kDeviceToHost || plan.direction == Direction::kDeviceToDevice;
  if (to_device) check_device_range(target, size_bytes, "the destination");
  if (from_device) check_device_range(source, size_bytes, "the source");
  if (!to_device && is_device_address(target)) fail(kInvalidParam, "the destination is device memory.");
  if (!from_device && is_device_address(source)) fail(kInvalidParam, "the source is device memory.");
  return plan;
}

int64_t cost_of(const CopyPlan& plan) {
  const auto bytes = static_cast<double>(plan.size_bytes);
  if (plan.direction == Direction::kHostToHost) return 0;
  return plan.direction == Direction::kDeviceToDevice ? device_copy_cost_ns(bytes, bytes) : host_copy_cost_ns(bytes);
}

void copy_now(const CopyPlan& plan) {
  void* target = plan.direction == Direction::kDeviceToHost || plan.direction == Direction::kHostToHost
                     ? plan.target
                     : host_address(plan.target);
  const void* source = plan.direction == Direction::kHostToDevice || plan.direction == Direction::kHostToHost
                           ? plan.source
                           : host_address(plan.source);
  std::memmove(target, source, plan.size_bytes);
  faults().corrupt_copy(plan.direction, plan.chip, target, plan.size_bytes);
}

// Step inputs and sampled tokens are copied. Weights are not, so that their memory stays unbacked (core/clock.h).
void copy(const CopyPlan& plan) {
  if (Clock::computes() || plan.size_bytes <= kHostVisibleBytes || plan.direction == Direction::kHostToHost) {
    copy_now(plan);
  } else if (plan.direction == Direction::kDeviceToHost) {
    std::memset(plan.target, 0, plan.size_bytes);
  }
}

class CopyTask : public Task {
 public:
  explicit CopyTask(const CopyPlan& plan) : plan_(plan) {}
  const char* name() const override { return "Memcpy"; }
  TaskKind kind() const override { return TaskKind::kCopy; }
  void run() override {
    copy(plan_);
    if (Clock::models_time()) Clock::timeline().advance(cost_of(plan_));
  }
  void run_without_compute() override { run(); }
  Work work() const override {
    const auto bytes = static_cast<double>(plan_.size_bytes);
    return {.read_bytes = bytes, .written_bytes = bytes};
  }

 private:
  CopyPlan plan_;
};

void fill_now(void* address, int value, size_t size_bytes) {
  if (value == 0) {
    fill_zero(address, size_bytes);
  } else {
    std::memset(host_address(address), value, size_bytes);
  }
}

void fill(void* address, int value, size_t size_bytes) {
  if (Clock::computes() || size_bytes <= kHostVisibleBytes) fill_now(address, value, size_bytes);
}

class FillTask : public Task {
 public:
  FillTask(void* address, int value, size_t size_bytes) : address_(address), value_(value), size_bytes_(size_bytes) {}
  const char* name() const override { return "Memset"; }
  TaskKind kind() const override { return TaskKind::kCopy; }
  void run() override {
    fill(address_, value_, size_bytes_);
    if (Clock::models_time()) Clock::timeline().advance(device_copy_cost_ns(0, static_cast<double>(size_bytes_)));
  }
  void run_without_compute() override { run(); }
  Work work() const override { return {.written_bytes = static_cast<double>(size_bytes_)}; }

 private:
  void* address_;
  int value_;
  size_t size_bytes_;
};

void copy_async(const CopyPlan& plan, aclrtStream handle) {
  count_copy(plan.direction, /*blocking=*/false, plan.size_bytes);
  Stream::from_handle(handle).append(std::make_shared<CopyTask>(plan));
}

// A blocking copy is ordered after the work of the default stream only, and does not wait for other streams.
void copy_sync(const CopyPlan& plan) {
  refuse_during_capture();
  Device& device = current_device();
  device.throw_if_failed();
  count_copy(plan.direction, /*blocking=*/true, plan.size_bytes);
  count_sync(Sync::kCopy);
  device.default_stream().synchronize(Deadline::never());
  copy(plan);
  if (Clock::models_time()) Clock::sleep_until(Clock::now_ns() + cost_of(plan));
}

std::vector<CopyPlan> plan_batch(void** targets, size_t* capacities, void** sources,
                                 size_t* sizes, size_t count, size_t* failed) {
  if (count == 0) fail(ACL_ERROR_INVALID_PARAM, "there is nothing to copy.");
  for (const void* array : {static_cast<const void*>(targets), static_cast<const void*>(capacities),
                            static_cast<const void*>(sources), static_cast<const void*>(sizes)}) {
    require_address(array, "an array of the batch");
  }
  std::vector<CopyPlan> plans;
  for (size_t i = 0; i < count; ++i) {
    if (failed != nullptr) *failed = i;
    plans.push_back(plan_copy(targets[i], capacities[i], sources[i], sizes[i], ACL_MEMCPY_DEFAULT));
  }
  if (failed != nullptr) *failed = SIZE_MAX;
  return plans;
}

}  // namespace

extern "C" {

aclError aclrtMemcpy(void* target, size_t capacity, const void* source, size_t size, aclrtMemcpyKind kind) {
  return guarded("aclrtMemcpy", [&] {
    copy_sync(plan_copy(target, capacity, source, size, kind));
  });
}

aclError aclrtMemcpyAsync(void* target, size_t capacity, const void* source, size_t size, aclrtMemcpyKind kind,
                          aclrtStream stream) {
  return guarded("aclrtMemcpyAsync", [&] {
    copy_async(plan_copy(target, capacity, source, size, kind), stream);
  });
}

// "With condition": the host memory need not be pinned, the call may then block. Here no memory is slower.
aclError aclrtMemcpyAsyncWithCondition(void* target, size_t capacity, const void* source, size_t size,
                                       aclrtMemcpyKind kind, aclrtStream stream) {
  return guarded("aclrtMemcpyAsyncWithCondition", [&] {
    copy_async(plan_copy(target, capacity, source, size, kind), stream);
  });
}

aclError aclrtMemcpyBatch(void** targets, size_t* capacities, void** sources, size_t* sizes, size_t count,
                          aclrtMemcpyBatchAttr* attributes, size_t* attribute_indices, size_t attribute_count,
                          size_t* failed) {
  return guarded("aclrtMemcpyBatch", [&] {
    for (const auto& plan : plan_batch(targets, capacities, sources, sizes, count, failed)) {
      copy_sync(plan);
    }
  });
}

aclError aclrtMemcpyBatchAsync(void** targets, size_t* capacities, void** sources, size_t* sizes, size_t count,
                               aclrtMemcpyBatchAttr* attributes, size_t* attribute_indices, size_t attribute_count,
                               size_t* failed, aclrtStream stream) {
  return guarded("aclrtMemcpyBatchAsync", [&] {
    for (const auto& plan : plan_batch(targets, capacities, sources, sizes, count, failed)) {
      copy_async(plan, stream);
    }
  });
}

aclError aclrtMemset(void* address, size_t capacity, int32_t value, size_t size) {
  return guarded("aclrtMemset", [&] {
    require_address(address, "devPtr");
    if (size > capacity) fail(kInvalidParam, "%zu bytes do not fit into %zu.", size, capacity);
    refuse_during_capture();
    if (!is_device_address(address)) {
      std::memset(address, value, size);
      return;
    }
    check_device_range(address, size, "the destination");
    count_sync(Sync::kCopy);
    current_device().default_stream().synchronize(Deadline::never());
    fill(address, value, size);
  });
}

aclError aclrtMemsetAsync(void* address, size_t capacity, int32_t value, size_t size, aclrtStream stream) {
  return guarded("aclrtMemsetAsync", [&] {
    require_address(address, "devPtr");
    if (size > capacity) fail(kInvalidParam, "%zu bytes do not fit into %zu.", size, capacity);
    check_device_range(address, size, "the destination");
    Stream::from_handle(stream).append(std::make_shared<FillTask>(address, value, size));
  });
}

// Cache hints have no effect on results; the range is checked.
aclError aclrtCmoAsync(void* address, size_t size, aclrtCmoType type, aclrtStream stream) {
  return guarded("aclrtCmoAsync", [&] { check_device_range(address, size, "the range"); });
}

}  // extern "C"
