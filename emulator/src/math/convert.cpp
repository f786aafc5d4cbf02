#include "math/convert.h"

#include <algorithm>
#include <cmath>

#include "core/errors.h"
#include "core/half.h"
#include "core/tensor.h"
#include "math/kernels.h"

namespace emulator {

namespace {

template <typename Source>
void widen(const void* source, float* target, int64_t count) {
  std::copy_n(static_cast<const Source*>(source), count, target);
}

}  // namespace

void to_float(const void* source, aclDataType dtype, float* target, int64_t count) {
  switch (dtype) {
    case ACL_FLOAT:
    case ACL_FLOAT16:
    case ACL_BF16:
    case ACL_INT8: return kernels().to_float(source, dtype, target, count);
    case ACL_BOOL:
    case ACL_UINT8: return widen<uint8_t>(source, target, count);
    case ACL_INT32: return widen<int32_t>(source, target, count);
    case ACL_INT64: return widen<int64_t>(source, target, count);
    default: fail(kParamInvalid, "data type %s cannot be read as float32", dtype_name(dtype));
  }
}

void from_float(const float* source, void* target, aclDataType dtype, int64_t count) {
  switch (dtype) {
    case ACL_FLOAT:
    case ACL_FLOAT16:
    case ACL_BF16: return kernels().from_float(source, target, dtype, count);
    case ACL_INT8: {
      auto* out = static_cast<int8_t*>(target);
      for (int64_t i = 0; i < count; ++i) {
        out[i] = static_cast<int8_t>(std::clamp(std::nearbyint(source[i]), -128.0f, 127.0f));
      }
      return;
    }
    default: fail(kParamInvalid, "float32 cannot be written as data type %s", dtype_name(dtype));
  }
}

float load_float(const void* source, aclDataType dtype, int64_t index) {
  switch (dtype) {
    case ACL_FLOAT: return static_cast<const float*>(source)[index];
    case ACL_FLOAT16: return float_from_half(static_cast<const uint16_t*>(source)[index]);
    case ACL_BF16: return float_from_bfloat16(static_cast<const uint16_t*>(source)[index]);
    default: {
      float value = 0;
      to_float(static_cast<const char*>(source) + index * element_bits(dtype) / 8, dtype, &value, 1);
      return value;
    }
  }
}

}  // namespace emulator
