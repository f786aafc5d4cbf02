// CANN's opaque argument types for operators. In CANN these live in libnnopbase, which finds them here.
#include <acl/acl.h>

#include <cstring>

#include "core/descriptors.h"
#include "core/errors.h"
#include "core/half.h"

using namespace emulator;

double aclScalar::to_double() const {
  switch (dtype) {
    case ACL_FLOAT: return as<float>();
    case ACL_DOUBLE: return as<double>();
    case ACL_FLOAT16: return float_from_half(as<uint16_t>());
    case ACL_BF16: return float_from_bfloat16(as<uint16_t>());
    case ACL_INT8: return as<int8_t>();
    case ACL_UINT8: return as<uint8_t>();
    case ACL_INT16: return as<int16_t>();
    case ACL_UINT16: return as<uint16_t>();
    case ACL_INT32: return as<int32_t>();
    case ACL_UINT32: return as<uint32_t>();
    case ACL_INT64: return static_cast<double>(as<int64_t>());
    case ACL_UINT64: return static_cast<double>(as<uint64_t>());
    case ACL_BOOL: return as<uint8_t>() != 0 ? 1 : 0;
    default: fail(kParamInvalid, "A scalar of type %s is not a real number.", dtype_name(dtype));
  }
}

int64_t aclScalar::to_int64() const {
  if (dtype == ACL_INT64) return as<int64_t>();  // a double holds 53 bits only
  if (dtype == ACL_UINT64) return static_cast<int64_t>(as<uint64_t>());
  return static_cast<int64_t>(to_double());
}

namespace {

template <typename Array, typename Value>
Array* create_array(const Value* values, uint64_t size) {
  if (values == nullptr && size != 0) return nullptr;
  auto* array = new Array;
  array->values.assign(values, values + size);
  return array;
}

// aclnn status of a destructor: CANN refuses null.
template <typename Type>
aclError destroy(const Type* object) {
  if (object == nullptr) return kParamNullptr;
  delete object;
  return ACL_SUCCESS;
}

}  // namespace

extern "C" {

aclTensor* aclCreateTensor(const int64_t* sizes, uint64_t rank, aclDataType dtype, const int64_t* strides,
                           int64_t offset, aclFormat format, const int64_t* storage_sizes, uint64_t storage_rank,
                           void* data) {
  aclTensor* tensor = nullptr;
  guarded("aclCreateTensor", [&] {
    TensorView view{.base = data,
                    .dtype = dtype,
                    .format = format,
                    .sizes = Dims(sizes, rank),
                    .strides = {},
                    .storage_sizes = Dims(storage_sizes, storage_rank),
                    .storage_offset = offset};
    if (strides != nullptr) {
      view.strides = Dims(strides, rank);
    } else {
      view.strides = view.sizes;
      int64_t stride = 1;
      for (int i = static_cast<int>(rank) - 1; i >= 0; --i) {
        view.strides[i] = stride;
        stride *= view.sizes[i];
      }
    }
    tensor = new aclTensor{view};
  });
  return tensor;
}

aclError aclDestroyTensor(const aclTensor* tensor) { return destroy(tensor); }

aclScalar* aclCreateScalar(void* value, aclDataType dtype) {
  aclScalar* scalar = nullptr;
  guarded("aclCreateScalar", [&] {
    if (value == nullptr) fail(kParamNullptr, "the value must not be null.");
    const auto size_bytes = static_cast<size_t>(element_bits(dtype) / 8);
    auto* created = new aclScalar{.dtype = dtype};
    std::memcpy(created->bytes.data(), value, size_bytes);  // the caller's variable has the size of its type
    scalar = created;
  });
  return scalar;
}

aclError aclDestroyScalar(const aclScalar* scalar) { return destroy(scalar); }

aclIntArray* aclCreateIntArray(const int64_t* values, uint64_t size) {
  return create_array<aclIntArray>(values, size);
}
aclError aclDestroyIntArray(const aclIntArray* array) { return destroy(array); }

aclFloatArray* aclCreateFloatArray(const float* values, uint64_t size) {
  return create_array<aclFloatArray>(values, size);
}
aclError aclDestroyFloatArray(const aclFloatArray* array) { return destroy(array); }

aclBoolArray* aclCreateBoolArray(const bool* values, uint64_t size) {
  return create_array<aclBoolArray>(values, size);
}
aclError aclDestroyBoolArray(const aclBoolArray* array) { return destroy(array); }

aclFp16Array* aclCreateFp16Array(const uint16_t* values, uint64_t size) {
  return create_array<aclFp16Array>(values, size);
}
aclError aclDestroyFp16Array(const aclFp16Array* array) { return destroy(array); }

aclTensorList* aclCreateTensorList(const aclTensor* const* tensors, uint64_t size) {
  auto* list = new aclTensorList;
  for (uint64_t i = 0; i < size; ++i) list->tensors.push_back(const_cast<aclTensor*>(tensors[i]));
  return list;
}

aclError aclDestroyTensorList(const aclTensorList* list) {
  if (list == nullptr) return kParamNullptr;
  for (const aclTensor* tensor : list->tensors) delete tensor;
  return destroy(list);
}

aclScalarList* aclCreateScalarList(const aclScalar* const* scalars, uint64_t size) {
  auto* list = new aclScalarList;
  for (uint64_t i = 0; i < size; ++i) list->scalars.push_back(const_cast<aclScalar*>(scalars[i]));
  return list;
}

aclError aclDestroyScalarList(const aclScalarList* list) {
  if (list == nullptr) return kParamNullptr;
  for (const aclScalar* scalar : list->scalars) delete scalar;
  return destroy(list);
}

// The caller frees the array with delete[].
aclError aclGetViewShape(const aclTensor* tensor, int64_t** sizes, uint64_t* rank) {
  if (tensor == nullptr || sizes == nullptr || rank == nullptr) return kParamNullptr;
  const Dims& view = tensor->view.sizes;
  *rank = view.size();
  *sizes = new int64_t[view.size() == 0 ? 1 : view.size()];
  std::copy(view.begin(), view.end(), *sizes);
  return ACL_SUCCESS;
}

aclTensorDesc* aclCreateTensorDesc(aclDataType dtype, int rank, const int64_t* sizes, aclFormat format) {
  aclTensorDesc* description = nullptr;
  guarded("aclCreateTensorDesc", [&] {
    description = new aclTensorDesc{.dtype = dtype, .sizes = Dims(sizes, static_cast<size_t>(rank)), .format = format};
  });
  return description;
}

void aclDestroyTensorDesc(const aclTensorDesc* description) { delete description; }

aclError aclSetTensorFormat(aclTensorDesc* description, aclFormat format) {
  return guarded("aclSetTensorFormat", [&] { description->storage_format = format; });
}

aclError aclSetTensorShape(aclTensorDesc* description, int rank, const int64_t* sizes) {
  return guarded("aclSetTensorShape",
                 [&] { description->storage_sizes = Dims(sizes, static_cast<size_t>(rank)); });
}

aclError aclSetTensorOriginFormat(aclTensorDesc* description, aclFormat format) {
  return guarded("aclSetTensorOriginFormat", [&] { description->format = format; });
}

aclError aclSetTensorOriginShape(aclTensorDesc* description, int rank, const int64_t* sizes) {
  return guarded("aclSetTensorOriginShape", [&] { description->sizes = Dims(sizes, static_cast<size_t>(rank)); });
}

aclError aclSetTensorPlaceMent(aclTensorDesc* description, aclMemType placement) {
  return guarded("aclSetTensorPlaceMent", [&] { description->placement = placement; });
}

aclError aclSetTensorConst(aclTensorDesc* description, void* data, size_t size) {
  return guarded("aclSetTensorConst", [&] {
    description->constant_data = data;
    description->constant_size_bytes = size;
  });
}

void aclSetTensorDescName(aclTensorDesc* description, const char* name) { description->name = name; }
const char* aclGetTensorDescName(aclTensorDesc* description) { return description->name.c_str(); }
aclDataType aclGetTensorDescType(const aclTensorDesc* description) { return description->dtype; }
aclFormat aclGetTensorDescFormat(const aclTensorDesc* description) { return description->format; }
size_t aclGetTensorDescNumDims(const aclTensorDesc* description) { return description->sizes.size(); }

aclError aclGetTensorDescDimV2(const aclTensorDesc* description, size_t index, int64_t* size) {
  return guarded("aclGetTensorDescDimV2", [&] {
    if (index >= description->sizes.size()) fail(ACL_ERROR_INVALID_PARAM, "dimension %zu does not exist.", index);
    *size = description->sizes[static_cast<int>(index)];
  });
}

size_t aclGetTensorDescElementCount(const aclTensorDesc* description) {
  return static_cast<size_t>(description->sizes.product());
}

size_t aclGetTensorDescSize(const aclTensorDesc* description) {
  return static_cast<size_t>(size_in_bytes(description->sizes, description->dtype));
}

aclDataBuffer* aclCreateDataBuffer(void* data, size_t size) {
  return new aclDataBuffer{.data = data, .size_bytes = size};
}

aclError aclDestroyDataBuffer(const aclDataBuffer* buffer) {
  if (buffer == nullptr) return ACL_ERROR_INVALID_PARAM;
  delete buffer;
  return ACL_SUCCESS;
}

aclError aclUpdateDataBuffer(aclDataBuffer* buffer, void* data, size_t size) {
  if (buffer == nullptr) return ACL_ERROR_INVALID_PARAM;
  *buffer = {.data = data, .size_bytes = size};
  return ACL_SUCCESS;
}

void* aclGetDataBufferAddr(const aclDataBuffer* buffer) { return buffer == nullptr ? nullptr : buffer->data; }
size_t aclGetDataBufferSizeV2(const aclDataBuffer* buffer) { return buffer == nullptr ? 0 : buffer->size_bytes; }
uint32_t aclGetDataBufferSize(const aclDataBuffer* buffer) {
  return static_cast<uint32_t>(aclGetDataBufferSizeV2(buffer));
}

size_t aclDataTypeSize(aclDataType dtype) {
  size_t size_bytes = 0;
  guarded("aclDataTypeSize", [&] { size_bytes = static_cast<size_t>(element_bits(dtype) / 8); });
  return size_bytes;
}

float aclFloat16ToFloat(aclFloat16 value) { return float_from_half(value); }
aclFloat16 aclFloatToFloat16(float value) { return half_from_float(value); }

}  // extern "C"
