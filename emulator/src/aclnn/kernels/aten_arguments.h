// An operator's arguments as ATen takes them. Every kernel file starts from this and the ATen/ops/*.h it calls.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Scalar.h>

#include <optional>
#include <vector>

#include "aclnn/aten_view.h"
#include "aclnn_arguments.h"

namespace emulator::aclnn {

inline at::Tensor in(const TensorView& view) { return as_aten(view); }
inline at::Tensor in_or_undefined(const TensorView& view) { return view.defined() ? as_aten(view) : at::Tensor(); }
inline std::optional<at::Tensor> in_or_none(const TensorView& view) {
  return view.defined() ? std::optional<at::Tensor>(as_aten(view)) : std::nullopt;
}
std::vector<at::Tensor> in(const TensorList& list);

at::Scalar scalar(const Scalar& value);
inline std::optional<at::Scalar> scalar_or_none(const Scalar& value) {
  return value.dtype == ACL_DT_UNDEFINED ? std::nullopt : std::optional<at::Scalar>(scalar(value));
}

inline at::IntArrayRef ints(const IntArray& array) { return {array.data(), array.size()}; }
inline at::OptionalIntArrayRef ints_or_none(const IntArray& array) {
  return array.present() && !array.empty() ? at::OptionalIntArrayRef(ints(array)) : std::nullopt;
}

// The output's memory as a tensor that ATen's out= functions fill in place. ATen gives a result of other sizes to a
// tensor that it resizes, and the caller's memory keeps what it had: such a launch fails when the Output goes.
class Output {
 public:
  explicit Output(const TensorView& view) : view_(view), tensor_(as_aten(view)) {}
  explicit Output(const DynamicTensor&) = delete;
  Output(const Output&) = delete;
  ~Output() noexcept(false);
  operator at::Tensor&() { return tensor_; }
  at::Tensor* operator->() { return &tensor_; }

 private:
  const TensorView& view_;
  at::Tensor tensor_;
};
inline Output out(const TensorView& view) { return Output(view); }

// For functions without an out= form: converts like Tensor.copy_, but takes a value of the view's own sizes only (or one
// element for one element).
void store(const TensorView& view, const at::Tensor& value);

}  // namespace emulator::aclnn
