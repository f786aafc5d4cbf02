// ATB's context (a holder of the stream to launch on) and the functions that belong to no operation.
#include "atb/operation.h"
#include "core/tensor.h"

namespace atb {
namespace {

// op-plugin shares one context between threads and sets the stream before every launch, so the stream is per thread.
thread_local aclrtStream current_stream = nullptr;

class EmulatedContext final : public Context {
 public:
  Status SetExecuteStream(aclrtStream stream) override {
    current_stream = stream;
    return NO_ERROR;
  }
  aclrtStream GetExecuteStream() const override { return current_stream; }
  Status SetAsyncTilingCopyStatus(bool enable) override {
    async_tiling_copy_ = enable;  // tiling data are never copied to the device here, so both settings behave the same
    return NO_ERROR;
  }
  bool GetAsyncTilingCopyStatus() const override { return async_tiling_copy_; }

 private:
  bool async_tiling_copy_ = false;
};

}  // namespace

Status CreateContext(Context** context) {
  if (context == nullptr) return ERROR_INVALID_PARAM;
  *context = new EmulatedContext;
  return NO_ERROR;
}

Status DestroyContext(Context* context) {
  delete context;
  return NO_ERROR;
}

// A captured graph may outlive the operation: tasks share nothing with it.
Status DestroyOperation(Operation* operation) {
  delete operation;
  return NO_ERROR;
}

uint64_t Utils::GetTensorSize(const Tensor& tensor) {
  const int64_t elements = emulator::element_count(tensor.desc);
  return elements <= 0 ? 0 : (elements * emulator::element_bits(tensor.desc.dtype) + 7) / 8;
}

}  // namespace atb
