#include "aclnn/kernels/aten_arguments.h"

#include <complex>
#include <exception>

namespace emulator::aclnn {

std::vector<at::Tensor> in(const TensorList& list) {
  std::vector<at::Tensor> tensors;
  tensors.reserve(list.size());
  for (const TensorView& view : list) tensors.push_back(in_or_undefined(view));
  return tensors;
}

namespace {

void require_result_sizes(const TensorView& view, at::IntArrayRef result) {
  if (at::IntArrayRef(view.sizes.data(), view.sizes.size()) == result) return;
  std::string sizes = "[";
  for (const int64_t size : result) sizes += (sizes.size() > 1 ? ", " : "") + std::to_string(size);
  fail(kAicoreException, "the output has sizes %s, but the result has %s].", to_string(view.sizes).c_str(), sizes.c_str());
}

}  // namespace

Output::~Output() noexcept(false) {
  if (std::uncaught_exceptions() == 0) require_result_sizes(view_, tensor_.sizes());
}

void store(const TensorView& view, const at::Tensor& value) {
  if (value.numel() != 1 || view.numel() != 1) require_result_sizes(view, value.sizes());
  at::Tensor target = as_aten(view);
  target.copy_(value.numel() == 1 ? value.reshape({}) : value);
}

at::Scalar scalar(const Scalar& value) {
  switch (value.dtype) {
    case ACL_BOOL: return value.as<bool>();
    case ACL_COMPLEX64: return c10::complex<double>(value.as<c10::complex<float>>());
    case ACL_COMPLEX128: return value.as<c10::complex<double>>();
    default: return is_integral(value.dtype) ? at::Scalar(value.to_int64()) : at::Scalar(value.to_double());
  }
}

}  // namespace emulator::aclnn
