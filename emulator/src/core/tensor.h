// What the emulator knows of a tensor: CANN's descriptor by value, and the address at which the CPU may touch it.
#pragma once

#include <acl/acl.h>

#include <array>
#include <cstdint>
#include <initializer_list>

namespace emulator {

// Sizes or strides; inline, because one is made for every tensor of every launch.
class Dims {
 public:
  static constexpr int kMaxRank = 8;  // ACL's own limit for aclTensor

  Dims() = default;
  Dims(std::initializer_list<int64_t> values) : Dims(values.begin(), values.size()) {}
  Dims(const int64_t* values, size_t rank);  // throws Failure beyond kMaxRank

  int rank() const { return rank_; }
  size_t size() const { return rank_; }
  bool empty() const { return rank_ == 0; }
  // A dimension that does not exist throws Failure(161002): no check of an operator can then read beside its tensor.
  int64_t operator[](int i) const { return values_[checked(i)]; }
  int64_t& operator[](int i) { return values_[checked(i)]; }
  int64_t back(int i = 0) const { return values_[checked(rank_ - 1 - i)]; }
  const int64_t* begin() const { return values_.data(); }
  const int64_t* end() const { return values_.data() + rank_; }
  const int64_t* data() const { return values_.data(); }
  void push_back(int64_t value);
  int64_t product() const;  // throws Failure(161002) beyond 2^63 - 1
  bool operator==(const Dims& other) const;

 private:
  int checked(int i) const {
    if (static_cast<unsigned>(i) >= static_cast<unsigned>(rank_)) [[unlikely]] refuse_dimension(i);
    return i;
  }
  [[noreturn]] void refuse_dimension(int i) const;

  std::array<int64_t, kMaxRank> values_{};
  int32_t rank_ = 0;
};

// aclCreateTensor's arguments by value. Owns nothing: CANN destroys descriptors before a captured graph replays,
// so a launch keeps copies of this.
struct TensorView {
  void* base = nullptr;  // device address of the storage, as torch_npu gave it (add storage_offset elements)
  aclDataType dtype = ACL_DT_UNDEFINED;
  aclFormat format = ACL_FORMAT_ND;
  Dims sizes;
  Dims strides;        // in elements
  Dims storage_sizes;  // [numel] for base formats; [..., N1, M1, 16, 16] for FRACTAL_NZ
  int64_t storage_offset = 0;  // in elements

  bool defined() const { return dtype != ACL_DT_UNDEFINED; }
  int rank() const { return sizes.rank(); }
  int64_t numel() const { return sizes.product(); }
  bool is_contiguous() const;
  bool is_fractal_nz() const { return format == ACL_FORMAT_FRACTAL_NZ; }

  // CPU-accessible address of the first element (of the storage, for FRACTAL_NZ). See host_address().
  void* data() const;
  template <typename T>
  T* data_as() const {
    return static_cast<T*>(data());
  }
};

// The CPU's address of device memory: the same address, or its alias when host access to device memory faults
// (ASCEND_EMULATOR_PROTECT_MEMORY=1). Every kernel reads and writes device memory through this and nothing else.
void* host_address(const void* device_address);

int64_t element_bits(aclDataType dtype);  // 4 for int4; throws Failure for an unknown type
int64_t size_in_bytes(const Dims& sizes, aclDataType dtype);
const char* dtype_name(aclDataType dtype);    // "float16", as CANN's messages write it
const char* format_name(aclFormat format);    // "FRACTAL_NZ"

}  // namespace emulator

// The opaque descriptor types of CANN's C API. Dynamic-shape operators write the resulting sizes back into theirs.
struct aclTensor {
  emulator::TensorView view;
};
