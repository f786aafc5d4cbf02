// Checks shared by the elementwise operators.
#include "aclnn/kernels/elementwise.h"

#include <ATen/ScalarOps.h>

namespace emulator::aclnn {

namespace {

enum Category { kBoolean, kIntegral, kFloating, kComplex };

Category category(aclDataType dtype) {
  if (dtype == ACL_BOOL) return kBoolean;
  if (is_complex(dtype)) return kComplex;
  return is_integral(dtype) ? kIntegral : kFloating;
}

const char* torch_name(aclDataType dtype) {
  switch (dtype) {
    case ACL_BOOL: return "Bool";
    case ACL_UINT8: return "Byte";
    case ACL_INT8: return "Char";
    case ACL_INT16: return "Short";
    case ACL_INT32: return "Int";
    case ACL_INT64: return "Long";
    case ACL_FLOAT16: return "Half";
    case ACL_FLOAT: return "Float";
    default: return dtype_name(dtype);
  }
}

// The wording is the one that op-plugin's tests look for.
void require_storable(Category result, const TensorView& out) {
  const Category stored = category(out.dtype);
  const bool fits = stored == kBoolean ? result <= kIntegral : result <= stored;
  require(fits, "result type %s can't be cast to the desired output type %s.",
          result == kComplex ? "ComplexFloat" : result == kFloating ? "Float" : "Long", torch_name(out.dtype));
}

}  // namespace

at::Tensor number(const Scalar& value) { return at::native::wrapped_scalar_tensor(scalar(value)); }

void check_unary(const TensorView& self, const TensorView& out) {
  require_sizes(out, "out", self.sizes);
  require_storable(category(self.dtype) == kComplex && category(out.dtype) == kFloating ? kFloating : category(self.dtype),
                   out);
}

void check_binary(const TensorView& self, const TensorView& other, const TensorView& out) {
  if (!(self.sizes == other.sizes && self.sizes == out.sizes)) {
    require_sizes(out, "out", broadcast_sizes(self.sizes, "self", other.sizes, "other"));
  }
  if (self.dtype != out.dtype || other.dtype != out.dtype) {
    require_storable(std::max(category(self.dtype), category(other.dtype)), out);
  }
}

void check_binary(const TensorView& self, const Scalar& other, const TensorView& out) {
  require_sizes(out, "out", self.sizes);
  require_storable(std::max(category(self.dtype), category(other.dtype)), out);
}

void check_comparison(const TensorView& self, const TensorView& other, const TensorView& out) {
  require_sizes(out, "out", broadcast_sizes(self.sizes, "self", other.sizes, "other"));
}

}  // namespace emulator::aclnn
