// Phase-1 refusals: those common to all operators, and the vocabulary for an operator's own.
#include <algorithm>
#include <cstdio>

#include "aclnn/launch.h"
#include "core/extent.h"

namespace emulator::aclnn {

namespace {

const char* product_name(Product product) {
  switch (product) {
    case kAtlasInference: return "Atlas inference products (Ascend 310P)";
    case kA2: return "Atlas A2 products (Ascend 910B)";
    case kA3: return "Atlas A3 products (Ascend 910_93)";
    case kA5: return "Ascend 950 products";
  }
  return "this product";
}

void validate_format(const TensorView& tensor, const char* name, bool accepts_nz) {
  switch (tensor.format) {
    case ACL_FORMAT_NC1HWC0:
    case ACL_FORMAT_FRACTAL_Z:
    case ACL_FORMAT_NC1HWC0_C04:
    case ACL_FORMAT_NDC1HWC0:
    case ACL_FRACTAL_Z_3D:
      fail(kParamInvalid, "%s has the private format %s, which aclnn operators do not take.", name,
           format_name(tensor.format));
    case ACL_FORMAT_FRACTAL_NZ:
      require(accepts_nz, "%s has format FRACTAL_NZ, which this operator does not take; cast it to ND first.", name);
      break;
    default:
      break;
  }
}

void validate_dtype(const TensorView& tensor, const char* name) {
  if (tensor.dtype == ACL_BF16) {
    require(chip().has_bf16, "%s is bfloat16, which %s does not have; use float16 or float32.", name,
            chip().soc_version);
  } else if (tensor.dtype >= ACL_HIFLOAT8) {  // the fp8, fp6 and fp4 types follow one another
    require(chip().has_fp8, "%s is %s, which %s does not have.", name, dtype_name(tensor.dtype), chip().soc_version);
  }
}

void validate_tensor(const TensorView& tensor, const Parameter& parameter, bool accepts_nz) {
  if (!tensor.defined()) return;
  validate_dtype(tensor, parameter.name);
  validate_format(tensor, parameter.name, accepts_nz);
  check_extent(tensor, parameter.name);
}

void check_memory_of(const TensorView& tensor, const char* name) {
  if (!tensor.defined() || tensor.base == nullptr) return;
  const int64_t elements = tensor.is_fractal_nz() ? tensor.storage_sizes.product() : reach(tensor, name);
  if (elements > 0) check_device_memory(tensor, name, elements * element_bits(tensor.dtype), kAicoreException);
}

bool is_present(ParameterKind kind, const void* field) {
  switch (kind) {
    case ParameterKind::kTensor: return static_cast<const TensorView*>(field)->defined();
    case ParameterKind::kDynamicTensor: return static_cast<const DynamicTensor*>(field)->descriptor != nullptr;
    case ParameterKind::kTensorList: return static_cast<const TensorList*>(field)->present;
    case ParameterKind::kScalar: return static_cast<const Scalar*>(field)->dtype != ACL_DT_UNDEFINED;
    case ParameterKind::kScalarList: return static_cast<const ScalarList*>(field)->present;
    case ParameterKind::kIntArray: return static_cast<const IntArray*>(field)->present();
    case ParameterKind::kFloatArray: return static_cast<const FloatArray*>(field)->present();
    case ParameterKind::kBoolArray: return static_cast<const BoolArray*>(field)->present();
    case ParameterKind::kString:
    case ParameterKind::kValue: return true;
  }
  return true;
}

const TensorView& tensor_at(const Operator& op, const void* args, uint8_t position) {
  return *reinterpret_cast<const TensorView*>(static_cast<const char*>(args) + op.parameters[position].offset);
}

bool is_signed(aclDataType dtype) {
  return dtype == ACL_INT8 || dtype == ACL_INT16 || dtype == ACL_INT32 || dtype == ACL_INT64;
}

void validate_demand(const Operator& op, const void* args, const Demand& demand) {
  const TensorView& subject = tensor_at(op, args, demand.subject);
  const char* name = op.parameters[demand.subject].name;
  if (!subject.defined()) return;  // an optional one that was not given
  switch (demand.kind) {
    case Demand::kSizes: {
      Dims sizes = tensor_at(op, args, demand.others[0]).sizes;
      for (int i = 1; i < demand.other_count; ++i) {
        const TensorView& other = tensor_at(op, args, demand.others[i]);
        if (other.defined()) sizes = broadcast_sizes(sizes, "the others", other.sizes, op.parameters[demand.others[i]].name);
      }
      return require_sizes(subject, name, sizes);
    }
    case Demand::kOne:
      return require(subject.numel() == 1, "%s has %lld elements, but must have one.", name,
                     static_cast<long long>(subject.numel()));
    case Demand::kFloating:
      return require(is_floating(subject.dtype) || is_complex(subject.dtype), "%s is %s, but must be of a floating type.",
                     name, dtype_name(subject.dtype));
    case Demand::kReal:
      return require(!is_complex(subject.dtype), "%s is %s, but must not be complex.", name, dtype_name(subject.dtype));
    case Demand::kNumber:
      return require(is_floating(subject.dtype) || is_complex(subject.dtype) || is_signed(subject.dtype) ||
                         subject.dtype == ACL_UINT8,
                     "%s is %s, which the operator does not compute with.", name, dtype_name(subject.dtype));
    case Demand::kAten:
      return require(is_floating(subject.dtype) || is_complex(subject.dtype) || is_integral(subject.dtype) ||
                         subject.dtype == ACL_BOOL,
                     "%s is %s, which the operator does not take.", name, dtype_name(subject.dtype));
    case Demand::kIndex: return require_dtype(subject, name, {ACL_INT32, ACL_INT64});
    case Demand::kBoolean: return require_dtype(subject, name, {ACL_BOOL});
  }
}

}  // namespace

void validate(const Operator& op, const void* args) {
  if ((op.products & chip().product) == 0) {
    fail(kRuntimeError, "the operator is not supported on %s (%s).", product_name(chip().product), chip().soc_version);
  }
  for (size_t i = 0; i < op.parameter_count; ++i) {
    const Parameter& parameter = op.parameters[i];
    const void* field = static_cast<const char*>(args) + parameter.offset;
    if (!parameter.optional && !is_present(parameter.kind, field)) {
      fail(kParamNullptr, "%s must not be null.", parameter.name);
    }
    switch (parameter.kind) {
      case ParameterKind::kTensor:
        validate_tensor(*static_cast<const TensorView*>(field), parameter, op.accepts_nz);
        break;
      case ParameterKind::kDynamicTensor:
        validate_tensor(static_cast<const DynamicTensor*>(field)->view, parameter, op.accepts_nz);
        break;
      case ParameterKind::kTensorList:
        for (const TensorView& tensor : *static_cast<const TensorList*>(field)) {
          validate_tensor(tensor, parameter, op.accepts_nz);
        }
        break;
      default:
        break;
    }
  }
  for (uint32_t i = 0; i < op.demand_count; ++i) validate_demand(op, args, op.demands[i]);
}

void check_memory(const Operator& op, const void* args) {
  for (size_t i = 0; i < op.parameter_count; ++i) {
    const Parameter& parameter = op.parameters[i];
    const void* field = static_cast<const char*>(args) + parameter.offset;
    if (parameter.kind == ParameterKind::kTensor) {
      check_memory_of(*static_cast<const TensorView*>(field), parameter.name);
    } else if (parameter.kind == ParameterKind::kTensorList) {
      for (const TensorView& tensor : *static_cast<const TensorList*>(field)) check_memory_of(tensor, parameter.name);
    }
  }
}

void refuse_unimplemented(const char* name) {
  fail(kRuntimeError, "CANN has this operator, but the emulator does not implement %s yet.", name);
}

void require(bool condition, const char* format, ...) {
  if (condition) return;
  char buffer[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(buffer, sizeof buffer, format, arguments);
  va_end(arguments);
  throw Failure(kParamInvalid, buffer);
}

void require_dtype(const TensorView& tensor, const char* name, std::initializer_list<aclDataType> accepted) {
  for (aclDataType dtype : accepted) {
    if (tensor.dtype == dtype) return;
  }
  std::string names;
  for (aclDataType dtype : accepted) names += (names.empty() ? "" : ", ") + std::string(dtype_name(dtype));
  fail(kParamInvalid, "%s is %s, but must be one of %s.", name, dtype_name(tensor.dtype), names.c_str());
}

void require_same_dtype(const TensorView& a, const char* name_a, const TensorView& b, const char* name_b) {
  require(a.dtype == b.dtype, "%s is %s and %s is %s, but they must be of one data type.", name_a, dtype_name(a.dtype),
          name_b, dtype_name(b.dtype));
}

std::string to_string(const Dims& sizes) {
  std::string text = "[";
  for (int64_t size : sizes) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

void require_sizes(const TensorView& tensor, const char* name, const Dims& expected) {
  if (tensor.sizes == expected) return;
  fail(kParamInvalid, "%s has sizes %s, but must have %s.", name, to_string(tensor.sizes).c_str(),
       to_string(expected).c_str());
}

void require_rank(const TensorView& tensor, const char* name, int at_least, int at_most) {
  require(tensor.rank() >= at_least && tensor.rank() <= at_most, "%s has %d dimensions, but must have %d to %d.", name,
          tensor.rank(), at_least, at_most);
}

int64_t require_dim(int64_t dim, const TensorView& tensor, const char* name) {
  const int64_t rank = tensor.rank() == 0 ? 1 : tensor.rank();
  require(dim >= -rank && dim < rank, "%s is %lld, but must lie in [%lld, %lld].", name, static_cast<long long>(dim),
          static_cast<long long>(-rank), static_cast<long long>(rank - 1));
  return dim < 0 ? dim + rank : dim;
}

bool is_floating(aclDataType dtype) {
  return dtype == ACL_FLOAT16 || dtype == ACL_FLOAT || dtype == ACL_BF16 || dtype == ACL_DOUBLE;
}

bool is_complex(aclDataType dtype) {
  return dtype == ACL_COMPLEX64 || dtype == ACL_COMPLEX128 || dtype == ACL_COMPLEX32;
}

bool is_integral(aclDataType dtype) {
  switch (dtype) {
    case ACL_INT8: case ACL_UINT8: case ACL_INT16: case ACL_UINT16:
    case ACL_INT32: case ACL_UINT32: case ACL_INT64: case ACL_UINT64: return true;
    default: return false;
  }
}

Dims broadcast_sizes(const Dims& a, const char* name_a, const Dims& b, const char* name_b) {
  const int rank = std::max(a.rank(), b.rank());
  Dims result;
  for (int i = rank - 1; i >= 0; --i) {
    const int64_t size_a = i < a.rank() ? a.back(i) : 1;
    const int64_t size_b = i < b.rank() ? b.back(i) : 1;
    if (size_a != size_b && size_a != 1 && size_b != 1) {
      fail(kParamInvalid, "%s %s and %s %s cannot be broadcast to one shape.", name_a, to_string(a).c_str(), name_b,
           to_string(b).c_str());
    }
    result.push_back(size_a == 1 ? size_b : size_a);
  }
  return result;
}

}  // namespace emulator::aclnn
