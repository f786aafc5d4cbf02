// Tensors as dense rows for kernels that compute on raw memory: a copy is made only of what is not dense already.
#pragma once

#include <ATen/core/Tensor.h>

#include "core/tensor.h"

namespace emulator::aclnn {

class DenseInput {
 public:
  explicit DenseInput(const TensorView& view);  // undefined views give a null pointer
  const void* data() const { return data_; }
  template <typename T>
  const T* data_as() const {
    return static_cast<const T*>(data_);
  }

 private:
  at::Tensor copy_;
  const void* data_ = nullptr;
};

// Written back to a non-dense view when it goes out of scope.
class DenseOutput {
 public:
  explicit DenseOutput(const TensorView& view, bool read_first = false);
  ~DenseOutput() noexcept(false);
  DenseOutput(const DenseOutput&) = delete;
  void* data() const { return data_; }
  template <typename T>
  T* data_as() const {
    return static_cast<T*>(data_);
  }

 private:
  const TensorView& view_;
  at::Tensor copy_;
  void* data_ = nullptr;
};

}  // namespace emulator::aclnn
