#include "aclnn/aten_view.h"

#include <ATen/EmptyTensor.h>
#include <ATen/ops/from_blob.h>

namespace emulator {

at::ScalarType aten_dtype(aclDataType dtype) {
  switch (dtype) {
    case ACL_FLOAT: return at::kFloat;
    case ACL_FLOAT16: return at::kHalf;
    case ACL_BF16: return at::kBFloat16;
    case ACL_DOUBLE: return at::kDouble;
    case ACL_INT8: return at::kChar;
    case ACL_UINT8: return at::kByte;
    case ACL_INT16: return at::kShort;
    case ACL_UINT16: return at::kUInt16;
    case ACL_INT32: return at::kInt;
    case ACL_UINT32: return at::kUInt32;
    case ACL_INT64: return at::kLong;
    case ACL_UINT64: return at::kUInt64;
    case ACL_BOOL: return at::kBool;
    case ACL_COMPLEX32: return at::kComplexHalf;
    case ACL_COMPLEX64: return at::kComplexFloat;
    case ACL_COMPLEX128: return at::kComplexDouble;
    default: fail(kParamInvalid, "data type %s has no ATen counterpart", dtype_name(dtype));
  }
}

at::Tensor as_aten(const TensorView& view) {
  if (view.is_fractal_nz()) {
    fail(kInnerError, "a FRACTAL_NZ tensor was read as if it had strides; use math/nz.h");
  }
  const at::IntArrayRef sizes(view.sizes.data(), view.sizes.size());
  const auto options = at::TensorOptions().dtype(aten_dtype(view.dtype));
  const at::IntArrayRef strides(view.strides.data(), view.strides.size());
  if (view.base == nullptr) {
    return at::Tensor(at::detail::empty_cpu(sizes, options));  // CANN allows a null address for tensors without elements
  }
  return at::from_blob(view.data(), sizes, strides, options);
}

}  // namespace emulator
