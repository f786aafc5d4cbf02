#include "aclnn/kernels/contiguous.h"

#include <exception>

#include "aclnn/aten_view.h"

namespace emulator::aclnn {

DenseInput::DenseInput(const TensorView& view) {
  if (!view.defined() || view.base == nullptr) return;
  if (view.is_contiguous()) {
    data_ = view.data();
    return;
  }
  copy_ = as_aten(view).contiguous();
  data_ = copy_.const_data_ptr();
}

DenseOutput::DenseOutput(const TensorView& view, bool read_first) : view_(view) {
  if (!view.defined() || view.base == nullptr) return;
  if (view.is_contiguous()) {
    data_ = view.data();
    return;
  }
  const at::Tensor strided = as_aten(view);
  copy_ = read_first ? strided.clone(at::MemoryFormat::Contiguous) : strided.new_empty(strided.sizes());
  data_ = copy_.mutable_data_ptr();
}

DenseOutput::~DenseOutput() noexcept(false) {
  if (copy_.defined() && std::uncaught_exceptions() == 0) as_aten(view_).copy_(copy_);
}

}  // namespace emulator::aclnn
