#include "core/tensor.h"

#include <algorithm>
#include <cstring>

#include "core/descriptors.h"
#include "core/errors.h"

namespace emulator {

Dims::Dims(const int64_t* values, size_t rank) {
  if (rank > kMaxRank) {
    fail(kParamInvalid, "A tensor may have at most %d dimensions, but %zu were given.", kMaxRank, rank);
  }
  if (values == nullptr && rank > 0) fail(kParamNullptr, "The sizes of %zu dimensions must not be null.", rank);
  std::copy_n(values, rank, values_.begin());
  rank_ = static_cast<int32_t>(rank);
}

void Dims::push_back(int64_t value) {
  if (rank_ == kMaxRank) fail(kParamInvalid, "A tensor may have at most %d dimensions.", kMaxRank);
  values_[rank_++] = value;
}

int64_t Dims::product() const {
  int64_t result = 1;
  bool overflows = false;
  for (int64_t value : *this) overflows |= __builtin_mul_overflow(result, value, &result);
  if (!overflows) [[likely]] return result;
  if (std::find(begin(), end(), 0) != end()) return 0;
  fail(kParamInvalid, "A tensor has more than 2^63 - 1 elements.");
}

void Dims::refuse_dimension(int i) const {
  fail(kParamInvalid, "Dimension %d was asked for of a tensor that has %d.", i, rank_);
}

bool Dims::operator==(const Dims& other) const {
  return rank_ == other.rank_ && std::equal(begin(), end(), other.begin());
}

bool TensorView::is_contiguous() const {
  int64_t expected = 1;
  for (int i = sizes.rank() - 1; i >= 0; --i) {
    if (sizes[i] != 1 && strides[i] != expected) return false;
    expected *= sizes[i];
  }
  return true;
}

void* TensorView::data() const {
  auto* storage = static_cast<char*>(host_address(base));
  return storage + storage_offset * element_bits(dtype) / 8;
}

namespace {

struct DtypeFacts {
  aclDataType dtype;
  const char* name;
  int bits;
};

constexpr DtypeFacts kDtypes[] = {
    {ACL_FLOAT, "float32", 32},
    {ACL_FLOAT16, "float16", 16},
    {ACL_INT8, "int8", 8},
    {ACL_INT32, "int32", 32},
    {ACL_UINT8, "uint8", 8},
    {ACL_INT16, "int16", 16},
    {ACL_UINT16, "uint16", 16},
    {ACL_UINT32, "uint32", 32},
    {ACL_INT64, "int64", 64},
    {ACL_UINT64, "uint64", 64},
    {ACL_DOUBLE, "double", 64},
    {ACL_BOOL, "bool", 8},
    {ACL_COMPLEX64, "complex64", 64},
    {ACL_COMPLEX128, "complex128", 128},
    {ACL_BF16, "bfloat16", 16},
    {ACL_INT4, "int4", 4},
    {ACL_UINT1, "uint1", 1},
    {ACL_COMPLEX32, "complex32", 32},
    {ACL_HIFLOAT8, "hifloat8", 8},
    {ACL_FLOAT8_E5M2, "float8_e5m2", 8},
    {ACL_FLOAT8_E4M3FN, "float8_e4m3fn", 8},
    {ACL_FLOAT8_E8M0, "float8_e8m0", 8},
    {ACL_FLOAT6_E3M2, "float6_e3m2", 6},
    {ACL_FLOAT6_E2M3, "float6_e2m3", 6},
    {ACL_FLOAT4_E2M1, "float4_e2m1", 4},
    {ACL_FLOAT4_E1M2, "float4_e1m2", 4},
};

// Indexed by the enumerator: element_bits() is asked for every tensor of every launch.
constexpr int kDtypeCount = ACL_FLOAT4_E1M2 + 1;

constexpr std::array<int, kDtypeCount> bits_by_dtype() {
  std::array<int, kDtypeCount> bits{};
  for (const auto& facts : kDtypes) bits[facts.dtype] = facts.bits;
  return bits;
}

constexpr auto kBits = bits_by_dtype();

}  // namespace

int64_t element_bits(aclDataType dtype) {
  const int bits = dtype >= 0 && dtype < kDtypeCount ? kBits[dtype] : 0;
  if (bits == 0) fail(kParamInvalid, "Data type %d has no size: it is not a tensor type of this CANN version.", dtype);
  return bits;
}

int64_t size_in_bytes(const Dims& sizes, aclDataType dtype) {
  return (sizes.product() * element_bits(dtype) + 7) / 8;
}

const char* dtype_name(aclDataType dtype) {
  for (const auto& facts : kDtypes) {
    if (facts.dtype == dtype) return facts.name;
  }
  return dtype == ACL_STRING ? "string" : "undefined";
}

const char* format_name(aclFormat format) {
  switch (format) {
    case ACL_FORMAT_NCHW: return "NCHW";
    case ACL_FORMAT_NHWC: return "NHWC";
    case ACL_FORMAT_ND: return "ND";
    case ACL_FORMAT_NC1HWC0: return "NC1HWC0";
    case ACL_FORMAT_FRACTAL_Z: return "FRACTAL_Z";
    case ACL_FORMAT_NC1HWC0_C04: return "NC1HWC0_C04";
    case ACL_FORMAT_HWCN: return "HWCN";
    case ACL_FORMAT_NDHWC: return "NDHWC";
    case ACL_FORMAT_FRACTAL_NZ: return "FRACTAL_NZ";
    case ACL_FORMAT_NCDHW: return "NCDHW";
    case ACL_FORMAT_NDC1HWC0: return "NDC1HWC0";
    case ACL_FRACTAL_Z_3D: return "FRACTAL_Z_3D";
    case ACL_FORMAT_NC: return "NC";
    case ACL_FORMAT_NCL: return "NCL";
    case ACL_FORMAT_FRACTAL_NZ_C0_16: return "FRACTAL_NZ_C0_16";
    case ACL_FORMAT_FRACTAL_NZ_C0_32: return "FRACTAL_NZ_C0_32";
    case ACL_FORMAT_FRACTAL_NZ_C0_2: return "FRACTAL_NZ_C0_2";
    case ACL_FORMAT_FRACTAL_NZ_C0_4: return "FRACTAL_NZ_C0_4";
    case ACL_FORMAT_FRACTAL_NZ_C0_8: return "FRACTAL_NZ_C0_8";
    default: return "UNDEFINED";
  }
}

}  // namespace emulator
