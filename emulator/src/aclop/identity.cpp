// Identity copies a tensor into another storage format (FRACTAL_NZ weights and caches) or as it is.
#include <cstring>

#include "aclop/operand.h"
#include "aclop/operators.h"
#include "core/clock.h"
#include "core/cost.h"
#include "core/errors.h"
#include "core/memory.h"
#include "math/nz.h"

namespace emulator::aclop {
namespace {

class IdentityTask final : public Task {
 public:
  IdentityTask(const aclTensorDesc& from, const aclDataBuffer& source, const aclTensorDesc& to,
               const aclDataBuffer& target)
      : from_(from), to_(to), source_(source), target_(target), sizes_(from.sizes) {
    const aclFormat from_format = storage_format(from), to_format = storage_format(to);
    if (from.dtype != to.dtype) {
      fail(ACL_ERROR_INVALID_PARAM, "Identity: the input is %s and the output %s; it does not convert.",
           dtype_name(from.dtype), dtype_name(to.dtype));
    }
    if (from.sizes.product() != to.sizes.product()) {
      fail(ACL_ERROR_INVALID_PARAM, "Identity: the input has %lld elements and the output %lld.",
           (long long)from.sizes.product(), (long long)to.sizes.product());
    }
    casts_ = from_format != to_format && !(is_row_major(from_format) && is_row_major(to_format));
    if (casts_) check_cast(from_format, to_format);
    check_memory();
  }

  // A cast is TransData on the device, whatever inserted it.
  const char* name() const override { return casts_ ? "TransData" : "Identity"; }
  TaskKind kind() const override { return casts_ ? TaskKind::kKernel : TaskKind::kCopy; }

  void run() override {
    convert();
    charge_copy();
  }
  void run_without_compute() override {
    if (!casts_ && static_cast<size_t>(storage_bytes(from_)) <= kHostVisibleBytes) convert();
    charge_copy();
  }

  Work work() const override {
    Work work;
    work.read_bytes = storage_bytes(from_);
    work.written_bytes = storage_bytes(to_);
    return work;
  }

 private:
  // A kernel is charged by the clock, a copy by itself.
  void charge_copy() const {
    if (casts_ || !Clock::models_time()) return;
    Clock::timeline().advance(device_copy_cost_ns(storage_bytes(from_), storage_bytes(to_)));
  }

  // As aclnn's operators ask (aclnn/validate.cpp): what is read and written is the buffer's, and device memory. A copy
  // writes as much as it reads.
  void check_memory() const {
    const auto written = static_cast<size_t>(casts_ ? storage_bytes(to_) : storage_bytes(from_));
    check_buffer(source_, static_cast<size_t>(storage_bytes(from_)), "the input");
    check_buffer(target_, written, "the output");
  }

  void convert() {
    check_memory();  // of a captured cast: what was there may have been given back
    void* source = host_address(source_.data);
    void* target = host_address(target_.data);
    if (!casts_) {
      std::memmove(target, source, storage_bytes(from_));
    } else if (storage_format(to_) == ACL_FORMAT_FRACTAL_NZ) {
      nd_to_nz(source, fractal_storage(target, to_, sizes_));
    } else {
      nz_to_nd(fractal_storage(source, from_, sizes_), target);
    }
  }

  void check_cast(aclFormat from_format, aclFormat to_format) {
    const bool to_nz = is_row_major(from_format) && to_format == ACL_FORMAT_FRACTAL_NZ;
    const bool from_nz = from_format == ACL_FORMAT_FRACTAL_NZ && is_row_major(to_format);
    if (!to_nz && !from_nz) {
      fail(ACL_ERROR_FORMAT_NOT_MATCH,
           "Identity: the emulator does not cast %s to %s; it casts between row-major formats and FRACTAL_NZ.",
           format_name(from_format), format_name(to_format));
    }
    fractal_storage(nullptr, to_nz ? to_ : from_, sizes_);
  }

  aclTensorDesc from_, to_;
  aclDataBuffer source_, target_;
  Dims sizes_;
  bool casts_ = false;
};

}  // namespace

TaskPtr make_identity(const Call& call) {
  require_operands(call, 1, 1);
  const Operand &from = call.inputs[0], &to = call.outputs[0];
  return std::make_shared<IdentityTask>(from.desc, from.buffer, to.desc, to.buffer);
}

}  // namespace emulator::aclop
