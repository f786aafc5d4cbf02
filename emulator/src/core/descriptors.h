// CANN's opaque argument types for operators, other than aclTensor: scalars, arrays and lists.
// libascendcl creates and destroys them (runtime/descriptors.cpp); operators read them in phase 1 and keep copies.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/tensor.h"

// A host scalar of any type up to complex128; `bytes` holds it in its own representation, zero beyond its size.
struct aclScalar {
  aclDataType dtype = ACL_DT_UNDEFINED;
  alignas(16) std::array<unsigned char, 16> bytes{};

  template <typename T>
  T as() const {  // the stored value reinterpreted; the caller has checked dtype
    return *reinterpret_cast<const T*>(bytes.data());
  }
  double to_double() const;    // any real type, bool included; throws Failure for complex
  int64_t to_int64() const;    // truncates, as CANN casts scalars
};

struct aclIntArray {
  std::vector<int64_t> values;
};

struct aclFloatArray {
  std::vector<float> values;
};

struct aclBoolArray {
  std::vector<uint8_t> values;  // 0 or 1
};

struct aclFp16Array {
  std::vector<uint16_t> values;
};

// Owns its elements: destroying the list destroys them, as in CANN.
struct aclTensorList {
  std::vector<aclTensor*> tensors;
};

struct aclScalarList {
  std::vector<aclScalar*> scalars;
};

// Descriptors of the older aclop interface.
struct aclTensorDesc {
  aclDataType dtype = ACL_DT_UNDEFINED;
  emulator::Dims sizes;
  aclFormat format = ACL_FORMAT_ND;
  aclFormat storage_format = ACL_FORMAT_UNDEFINED;  // aclSetTensorFormat; undefined means: as format
  emulator::Dims storage_sizes{};                   // aclSetTensorShape
  std::string name{};
  aclMemType placement = ACL_MEMTYPE_DEVICE;
  const void* constant_data = nullptr;  // aclSetTensorConst: host data that must outlive the description
  size_t constant_size_bytes = 0;
};

struct aclDataBuffer {
  void* data = nullptr;
  size_t size_bytes = 0;
};

namespace emulator {

// Whether the pointer is a descriptor that aclCreate... made and nobody has destroyed since; false for null.
bool is_live(const aclTensor* tensor);
bool is_live(const aclScalar* scalar);
bool is_live(const aclIntArray* array);
bool is_live(const aclFloatArray* array);
bool is_live(const aclBoolArray* array);
bool is_live(const aclFp16Array* array);
bool is_live(const aclTensorList* list);
bool is_live(const aclScalarList* list);
bool is_live(const aclTensorDesc* description);
bool is_live(const aclDataBuffer* buffer);

}  // namespace emulator
