// CANN's opaque argument types for operators. In CANN these live in libnnopbase, which finds them here.
#include <acl/acl.h>

#include <cstring>
#include <vector>

#include "core/descriptors.h"
#include "core/errors.h"
#include "core/half.h"
#include "core/object_pool.h"

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

// Never destroyed: threads outlive static destructors.
template <typename Type>
ObjectPool<Type>& pool() {
  static auto& instance = *new ObjectPool<Type>;
  return instance;
}

template <typename Array, typename Value>
Array* create_array(const Value* values, uint64_t size) {
  Array* array = nullptr;
  guarded("aclCreateArray", [&] {
    if (size != 0) require_address(values, "value");
    array = pool<Array>().make();
    array->values.assign(values, values + size);
  });
  return array;
}

// CANN has nothing to do for null (opbase's acl_meta). What is no descriptor, or was destroyed, ends the process there.
template <typename Type>
aclError destroy(const Type* object) {
  if (object == nullptr) return ACL_SUCCESS;
  return pool<Type>().destroy(object) ? ACL_SUCCESS : kParamInvalid;
}

// The list has its elements from now on; null is an optional one that is absent.
template <typename List, typename Element>
List* create_list(const char* function, const Element* const* elements, uint64_t size,
                  std::vector<Element*> List::* own) {
  List* list = nullptr;
  guarded(function, [&] {
    if (size != 0) require_address(elements, "value");
    for (uint64_t i = 0; i < size; ++i) {
      if (elements[i] != nullptr && !is_live(elements[i])) {
        fail(kParamInvalid, "element %llu does not exist: it was destroyed or never created.", (unsigned long long)i);
      }
    }
    list = pool<List>().make();
    for (uint64_t i = 0; i < size; ++i) (list->*own).push_back(const_cast<Element*>(elements[i]));
  });
  return list;
}

template <typename List, typename Element>
aclError destroy_list(const List* list, std::vector<Element*> List::* own) {
  if (list == nullptr) return ACL_SUCCESS;
  if (!is_live(list)) return kParamInvalid;
  for (const Element* element : list->*own) destroy(element);
  return destroy(list);
}

// A description of the older interface; null and what is none are refused with CANN's 100000.
template <typename Type>
Type& described(Type* object) {
  require_address(object, "desc");
  if (!is_live(object)) fail(ACL_ERROR_INVALID_PARAM, "%p does not exist: it was destroyed or never created.",
                             static_cast<const void*>(object));
  return *object;
}

}  // namespace

namespace emulator {

bool is_live(const aclTensor* tensor) { return pool<aclTensor>().holds(tensor); }
bool is_live(const aclScalar* scalar) { return pool<aclScalar>().holds(scalar); }
bool is_live(const aclIntArray* array) { return pool<aclIntArray>().holds(array); }
bool is_live(const aclFloatArray* array) { return pool<aclFloatArray>().holds(array); }
bool is_live(const aclBoolArray* array) { return pool<aclBoolArray>().holds(array); }
bool is_live(const aclFp16Array* array) { return pool<aclFp16Array>().holds(array); }
bool is_live(const aclTensorList* list) { return pool<aclTensorList>().holds(list); }
bool is_live(const aclScalarList* list) { return pool<aclScalarList>().holds(list); }
bool is_live(const aclTensorDesc* description) { return pool<aclTensorDesc>().holds(description); }
bool is_live(const aclDataBuffer* buffer) { return pool<aclDataBuffer>().holds(buffer); }

}  // namespace emulator

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
    tensor = pool<aclTensor>().make(view);
  });
  return tensor;
}

aclError aclDestroyTensor(const aclTensor* tensor) { return destroy(tensor); }

aclScalar* aclCreateScalar(void* value, aclDataType dtype) {
  aclScalar* scalar = nullptr;
  guarded("aclCreateScalar", [&] {
    if (value == nullptr) fail(kParamNullptr, "the value must not be null.");
    const auto size_bytes = static_cast<size_t>(element_bits(dtype) / 8);
    auto* created = pool<aclScalar>().make(dtype);
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
  return create_list("aclCreateTensorList", tensors, size, &aclTensorList::tensors);
}

aclError aclDestroyTensorList(const aclTensorList* list) { return destroy_list(list, &aclTensorList::tensors); }

aclScalarList* aclCreateScalarList(const aclScalar* const* scalars, uint64_t size) {
  return create_list("aclCreateScalarList", scalars, size, &aclScalarList::scalars);
}

aclError aclDestroyScalarList(const aclScalarList* list) { return destroy_list(list, &aclScalarList::scalars); }

// The caller frees the array with delete[].
aclError aclGetViewShape(const aclTensor* tensor, int64_t** sizes, uint64_t* rank) {
  if (tensor == nullptr || sizes == nullptr || rank == nullptr) return kParamNullptr;
  if (!is_live(tensor)) return kParamInvalid;
  const Dims& view = tensor->view.sizes;
  *rank = view.size();
  *sizes = new int64_t[view.size() == 0 ? 1 : view.size()];
  std::copy(view.begin(), view.end(), *sizes);
  return ACL_SUCCESS;
}

aclTensorDesc* aclCreateTensorDesc(aclDataType dtype, int rank, const int64_t* sizes, aclFormat format) {
  aclTensorDesc* description = nullptr;
  guarded("aclCreateTensorDesc", [&] {
    description = pool<aclTensorDesc>().make(dtype, Dims(sizes, static_cast<size_t>(rank)), format);
  });
  return description;
}

void aclDestroyTensorDesc(const aclTensorDesc* description) { destroy(description); }

aclError aclSetTensorFormat(aclTensorDesc* description, aclFormat format) {
  return guarded("aclSetTensorFormat", [&] { described(description).storage_format = format; });
}

aclError aclSetTensorShape(aclTensorDesc* description, int rank, const int64_t* sizes) {
  return guarded("aclSetTensorShape",
                 [&] { described(description).storage_sizes = Dims(sizes, static_cast<size_t>(rank)); });
}

aclError aclSetTensorOriginFormat(aclTensorDesc* description, aclFormat format) {
  return guarded("aclSetTensorOriginFormat", [&] { described(description).format = format; });
}

aclError aclSetTensorOriginShape(aclTensorDesc* description, int rank, const int64_t* sizes) {
  return guarded("aclSetTensorOriginShape",
                 [&] { described(description).sizes = Dims(sizes, static_cast<size_t>(rank)); });
}

aclError aclSetTensorPlaceMent(aclTensorDesc* description, aclMemType placement) {
  return guarded("aclSetTensorPlaceMent", [&] { described(description).placement = placement; });
}

aclError aclSetTensorConst(aclTensorDesc* description, void* data, size_t size) {
  return guarded("aclSetTensorConst", [&] {
    described(description).constant_data = data;
    description->constant_size_bytes = size;
  });
}

// These have no code to answer with: null has what a description that says nothing has.
void aclSetTensorDescName(aclTensorDesc* description, const char* name) {
  if (is_live(description)) description->name = name == nullptr ? "" : name;
}
const char* aclGetTensorDescName(aclTensorDesc* description) {
  return !is_live(description) ? "" : description->name.c_str();
}
aclDataType aclGetTensorDescType(const aclTensorDesc* description) {
  return !is_live(description) ? ACL_DT_UNDEFINED : description->dtype;
}
aclFormat aclGetTensorDescFormat(const aclTensorDesc* description) {
  return !is_live(description) ? ACL_FORMAT_UNDEFINED : description->format;
}
size_t aclGetTensorDescNumDims(const aclTensorDesc* description) {
  return !is_live(description) ? 0 : description->sizes.size();
}

aclError aclGetTensorDescDimV2(const aclTensorDesc* description, size_t index, int64_t* size) {
  return guarded("aclGetTensorDescDimV2", [&] {
    require_address(size, "dimSize");
    if (index >= described(description).sizes.size()) {
      fail(ACL_ERROR_INVALID_PARAM, "dimension %zu does not exist.", index);
    }
    *size = description->sizes[static_cast<int>(index)];
  });
}

size_t aclGetTensorDescElementCount(const aclTensorDesc* description) {
  size_t count = 0;
  guarded("aclGetTensorDescElementCount",
          [&] { count = static_cast<size_t>(described(description).sizes.product()); });
  return count;
}

size_t aclGetTensorDescSize(const aclTensorDesc* description) {
  size_t size_bytes = 0;
  guarded("aclGetTensorDescSize", [&] {
    described(description);
    size_bytes = static_cast<size_t>(size_in_bytes(description->sizes, description->dtype));
  });
  return size_bytes;
}

aclDataBuffer* aclCreateDataBuffer(void* data, size_t size) {
  aclDataBuffer* buffer = nullptr;
  guarded("aclCreateDataBuffer", [&] { buffer = pool<aclDataBuffer>().make(data, size); });
  return buffer;
}

aclError aclDestroyDataBuffer(const aclDataBuffer* buffer) {
  return buffer != nullptr && pool<aclDataBuffer>().destroy(buffer) ? ACL_SUCCESS : ACL_ERROR_INVALID_PARAM;
}

aclError aclUpdateDataBuffer(aclDataBuffer* buffer, void* data, size_t size) {
  if (!is_live(buffer)) return ACL_ERROR_INVALID_PARAM;
  *buffer = {.data = data, .size_bytes = size};
  return ACL_SUCCESS;
}

void* aclGetDataBufferAddr(const aclDataBuffer* buffer) { return is_live(buffer) ? buffer->data : nullptr; }
size_t aclGetDataBufferSizeV2(const aclDataBuffer* buffer) { return is_live(buffer) ? buffer->size_bytes : 0; }
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
