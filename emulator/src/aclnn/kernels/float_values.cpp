#include "aclnn/kernels/float_values.h"

#include "aclnn/kernels/contiguous.h"
#include "core/errors.h"
#include "math/convert.h"

namespace emulator::aclnn {

std::vector<float> float_values(const TensorView& view) {
  if (!view.defined()) return {};
  std::vector<float> values(view.numel());
  to_float(DenseInput(view).data(), view.dtype, values.data(), view.numel());
  return values;
}

namespace {

template <typename T>
void widen(const void* from, std::vector<int64_t>& to) {
  for (size_t i = 0; i < to.size(); ++i) to[i] = static_cast<int64_t>(static_cast<const T*>(from)[i]);
}

template <typename T>
void narrow(const std::vector<int64_t>& from, void* to) {
  for (size_t i = 0; i < from.size(); ++i) static_cast<T*>(to)[i] = static_cast<T>(from[i]);
}

}  // namespace

std::vector<int64_t> int_values(const TensorView& view) {
  if (!view.defined()) return {};
  std::vector<int64_t> values(view.numel());
  const DenseInput dense(view);
  switch (view.dtype) {
    case ACL_INT64: widen<int64_t>(dense.data(), values); break;
    case ACL_INT32: widen<int32_t>(dense.data(), values); break;
    case ACL_INT8: widen<int8_t>(dense.data(), values); break;
    case ACL_UINT8:
    case ACL_BOOL: widen<uint8_t>(dense.data(), values); break;
    default: fail(kAicoreException, "%s values are no integers.", dtype_name(view.dtype));
  }
  return values;
}

namespace {

void require_count(const TensorView& view, size_t count) {
  if (static_cast<size_t>(view.numel()) == count) return;
  fail(kAicoreException, "an output has %lld elements, but the result has %zu.", static_cast<long long>(view.numel()), count);
}

}  // namespace

void store_values(const TensorView& view, const std::vector<float>& values) {
  if (!view.defined()) return;
  require_count(view, values.size());
  const DenseOutput dense(view);
  from_float(values.data(), dense.data(), view.dtype, static_cast<int64_t>(values.size()));
}

void store_values(const TensorView& view, const std::vector<int64_t>& values) {
  if (!view.defined()) return;
  require_count(view, values.size());
  const DenseOutput dense(view);
  if (view.dtype == ACL_INT64) {
    narrow<int64_t>(values, dense.data());
  } else {
    narrow<int32_t>(values, dense.data());
  }
}

}  // namespace emulator::aclnn
