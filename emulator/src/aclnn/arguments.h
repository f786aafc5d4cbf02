// By-value copies of an aclnn call's arguments: CANN's descriptors are destroyed long before a captured graph replays.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/descriptors.h"
#include "core/tensor.h"

namespace emulator::aclnn {

// An aclIntArray and its kin. Up to kInline elements need no allocation of their own: one is made in every launch.
template <typename T>
class Array {
 public:
  static constexpr size_t kInline = 8;

  void assign(const T* values, size_t size) {
    present_ = true;
    size_ = size;
    if (size <= kInline) {
      std::copy_n(values, size, inline_.begin());
    } else {
      overflow_.assign(values, values + size);
    }
  }
  bool present() const { return present_; }  // false for a null pointer, which is not the same as an empty array
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  const T* data() const { return size_ <= kInline ? inline_.data() : overflow_.data(); }
  const T* begin() const { return data(); }
  const T* end() const { return data() + size_; }
  T operator[](size_t i) const { return data()[i]; }

 private:
  std::array<T, kInline> inline_{};
  std::vector<T> overflow_;
  size_t size_ = 0;
  bool present_ = false;
};

using IntArray = Array<int64_t>;
using FloatArray = Array<float>;
using BoolArray = Array<uint8_t>;
using Scalar = aclScalar;

// Elements may be undefined: aclnnIndex marks "all of this dimension" that way.
struct TensorList {
  std::vector<TensorView> tensors;
  bool present = false;

  size_t size() const { return tensors.size(); }
  bool empty() const { return tensors.empty(); }
  const TensorView& operator[](size_t i) const { return tensors[i]; }
  auto begin() const { return tensors.begin(); }
  auto end() const { return tensors.end(); }
};

struct ScalarList {
  std::vector<Scalar> scalars;
  bool present = false;

  size_t size() const { return scalars.size(); }
  const Scalar& operator[](size_t i) const { return scalars[i]; }
};

// An output whose sizes only the kernel knows. They are written into the caller's own descriptor, where the caller
// reads them with aclGetViewShape, so such a launch completes before its second phase returns.
struct DynamicTensor {
  TensorView view;
  aclTensor* descriptor = nullptr;

  // The view's memory with the first `sizes` elements in row-major order; also tells the caller.
  TensorView resolve(const Dims& sizes) const;
};

// Copies one argument out of CANN's descriptor; a null pointer leaves the argument absent.
void assign(TensorView& to, const aclTensor* from);
void assign(DynamicTensor& to, const aclTensor* from);
void assign(TensorList& to, const aclTensorList* from);
void assign(Scalar& to, const aclScalar* from);
void assign(ScalarList& to, const aclScalarList* from);
void assign(IntArray& to, const aclIntArray* from);
void assign(FloatArray& to, const aclFloatArray* from);
void assign(BoolArray& to, const aclBoolArray* from);
void assign(std::string& to, const char* from);

template <typename T>
void assign(T& to, T from) {  // int64_t, double, bool, aclDataType ...
  to = from;
}

}  // namespace emulator::aclnn
