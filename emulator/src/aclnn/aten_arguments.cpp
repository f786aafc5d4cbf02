#include "aclnn/kernels/aten_arguments.h"

#include <complex>

namespace emulator::aclnn {

std::vector<at::Tensor> in(const TensorList& list) {
  std::vector<at::Tensor> tensors;
  tensors.reserve(list.size());
  for (const TensorView& view : list) tensors.push_back(in_or_undefined(view));
  return tensors;
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
