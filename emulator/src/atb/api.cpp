#include "atb/api.h"

#include <algorithm>
#include <mutex>

#include "core/extent.h"
#include "core/forms.h"

namespace emulator {

namespace {

class ApiOperation final : public ::atb::Operation {
 public:
  explicit ApiOperation(const char* name) : name_(name) {}
  std::string GetName() const override { return name_; }
  ::atb::Status InferShape(const ::atb::SVector<::atb::TensorDesc>&, ::atb::SVector<::atb::TensorDesc>&) const override {
    return ::atb::ERROR_INVALID_PARAM;
  }
  uint32_t GetInputNum() const override { return 0; }
  uint32_t GetOutputNum() const override { return 0; }
  ::atb::Status Setup(const ::atb::VariantPack&, uint64_t&, ::atb::Context*) override { return ::atb::ERROR_INVALID_PARAM; }
  ::atb::Status Execute(const ::atb::VariantPack&, uint8_t*, uint64_t, ::atb::Context*) override {
    return ::atb::ERROR_INVALID_PARAM;
  }

  // Between the phases the operation has the launch; threads that share one get whole launches, the latest first phase's.
  void keep(ApiLaunch launch, aclrtStream stream) {
    const std::lock_guard lock(mutex_);
    launch_ = std::move(launch);
    stream_ = stream;
  }
  void submit_kept() const {
    std::unique_lock lock(mutex_);
    TaskPtr task = std::make_shared<FunctionTask>(name_, launch_.work, launch_.body);
    const aclrtStream stream = stream_;
    lock.unlock();
    submit(stream, std::move(task));
  }

 private:
  const char* name_;
  mutable std::mutex mutex_;
  ApiLaunch launch_;
  aclrtStream stream_ = nullptr;
};

std::string list(const Dims& sizes) {
  std::string text;
  for (const int64_t size : sizes) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "[" + text + "]";
}

}  // namespace

::atb::Status prepare(const char* name, uint64_t* workspace_size, ::atb::Operation** operation, ::atb::Context* context,
                      const std::function<ApiLaunch()>& check) {
  return atb_guarded(name, [&] {
    require(operation != nullptr && workspace_size != nullptr, ::atb::ERROR_INVALID_PARAM, "op and workspaceSize must not be null.");
    require(context != nullptr, ::atb::ERROR_INVALID_CONTEXT_ADDR, "the context is null.");
    ApiLaunch launch = check();
    if (*operation == nullptr) *operation = new ApiOperation(name);
    static_cast<ApiOperation*>(*operation)->keep(std::move(launch), context->GetExecuteStream());
    *workspace_size = 0;  // intermediate results live on the CPU's heap
  });
}

::atb::Status execute(const char* name, ::atb::Operation* operation, ::atb::Context* context) {
  return atb_guarded(name, [&] {
    require(operation != nullptr, ::atb::ERROR_INVALID_PARAM, "call its GetWorkspaceSize first: the operation is null.");
    require(context != nullptr, ::atb::ERROR_INVALID_CONTEXT_ADDR, "the context is null.");
    if (records_forms()) record_form(name);
    static_cast<const ApiOperation*>(operation)->submit_kept();
  });
}

namespace {

const aclTensor* live(const aclTensor* tensor) {
  if (tensor != nullptr && !is_live(tensor)) {
    reject(::atb::ERROR_INVALID_TENSOR_ADDR, "the tensor %p does not exist: it was destroyed or never created.",
           static_cast<const void*>(tensor));
  }
  return tensor;
}

}  // namespace

TensorView view_of(const aclTensor* tensor) {
  if (live(tensor) == nullptr) return {};
  const TensorView view = tensor->view;
  TensorView dense = view;  // ATB's kernels know no strides
  int64_t stride = 1;
  dense.strides = view.sizes;
  for (int i = view.rank() - 1; i >= 0; --i) {
    dense.strides[i] = stride;
    if (__builtin_mul_overflow(stride, view.sizes[i], &stride)) {
      reject(::atb::ERROR_INVALID_TENSOR_SIZE, "a tensor has sizes %s, whose product overflows.", list(view.sizes).c_str());
    }
  }
  try {
    check_extent(dense, "a tensor");
  } catch (const Failure& failure) {
    reject(::atb::ERROR_INVALID_TENSOR_ADDR, "%s", failure.what());
  }
  return view;
}

std::vector<int32_t> host_lengths(const aclTensor* tensor, const char* name) {
  if (live(tensor) == nullptr) reject(::atb::ERROR_INVALID_TENSOR_ADDR, "%s must not be null.", name);
  const TensorView& view = tensor->view;
  require_type(view, name, {ACL_INT32});
  const int64_t count = reach(view, name) == 0 ? 0 : view.numel();
  if (count == 0) return {};
  if (view.base == nullptr || count > view.storage_sizes.product() - view.storage_offset) {
    reject(::atb::ERROR_INVALID_TENSOR_ADDR, "%s has %lld lengths, more than its storage.", name,
           static_cast<long long>(count));
  }
  const auto* values = static_cast<const int32_t*>(view.base) + view.storage_offset;
  const std::vector<int32_t> lengths(values, values + count);
  if (*std::min_element(lengths.begin(), lengths.end()) < 0) {
    reject(::atb::ERROR_INVALID_PARAM, "%s has a negative length.", name);
  }
  return lengths;
}

void require_type(const TensorView& tensor, const char* name, std::initializer_list<aclDataType> accepted) {
  if (!tensor.defined()) reject(::atb::ERROR_INVALID_TENSOR_ADDR, "%s must not be null.", name);
  std::string names;
  for (const aclDataType dtype : accepted) {
    if (tensor.dtype == dtype) return;
    names += (names.empty() ? "" : ", ") + std::string(dtype_name(dtype));
  }
  reject(::atb::ERROR_INVALID_TENSOR_DTYPE, "%s is %s, but must be one of %s.", name, dtype_name(tensor.dtype), names.c_str());
}

void require_shape(const TensorView& tensor, const char* name, const Dims& expected) {
  if (tensor.sizes == expected) return;
  reject(::atb::ERROR_INVALID_TENSOR_DIM, "%s has sizes %s, but must have %s.", name, list(tensor.sizes).c_str(),
         list(expected).c_str());
}

double bytes_of(const TensorView& tensor) {
  return tensor.defined() ? static_cast<double>(size_in_bytes(tensor.sizes, tensor.dtype)) : 0.0;
}

}  // namespace emulator
