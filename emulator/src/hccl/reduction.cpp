#include "hccl/reduction.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "core/errors.h"
#include "math/convert.h"

namespace emulator::hccl {
namespace {

constexpr uint64_t kBlock = 1024;  // elements that stay in the first-level cache while the sources are added up

template <typename T>
void combine(HcclReduceOp operation, T* sum, const T* term, uint64_t count) {
  // Integers wrap around, as in hardware.
  using Wide = std::conditional_t<std::is_integral_v<T>, std::make_unsigned<T>, std::type_identity<T>>::type;
  switch (operation) {
    case HCCL_REDUCE_SUM:
      for (uint64_t i = 0; i < count; ++i)
        sum[i] = static_cast<T>(static_cast<Wide>(sum[i]) + static_cast<Wide>(term[i]));
      break;
    case HCCL_REDUCE_PROD:
      for (uint64_t i = 0; i < count; ++i)
        sum[i] = static_cast<T>(static_cast<Wide>(sum[i]) * static_cast<Wide>(term[i]));
      break;
    case HCCL_REDUCE_MAX:
      for (uint64_t i = 0; i < count; ++i) sum[i] = std::max(sum[i], term[i]);
      break;
    case HCCL_REDUCE_MIN:
      for (uint64_t i = 0; i < count; ++i) sum[i] = std::min(sum[i], term[i]);
      break;
    default: fail(kInvalidParam, "unknown reduction %d", operation);
  }
}

template <typename T>
void reduce_native(HcclReduceOp operation, const char* const* sources, size_t source_count, char* target,
                   uint64_t count) {
  T block[kBlock];
  for (uint64_t begin = 0; begin < count; begin += kBlock) {
    const uint64_t length = std::min(kBlock, count - begin);
    std::memcpy(block, sources[0] + begin * sizeof(T), length * sizeof(T));
    for (size_t source = 1; source < source_count; ++source) {
      combine(operation, block, reinterpret_cast<const T*>(sources[source]) + begin, length);
    }
    std::memcpy(target + begin * sizeof(T), block, length * sizeof(T));
  }
}

void reduce_half(HcclReduceOp operation, aclDataType dtype, const char* const* sources, size_t source_count,
                 char* target, uint64_t count) {
  float block[kBlock], term[kBlock];
  for (uint64_t begin = 0; begin < count; begin += kBlock) {
    const uint64_t length = std::min(kBlock, count - begin);
    to_float(sources[0] + begin * 2, dtype, block, static_cast<int64_t>(length));
    for (size_t source = 1; source < source_count; ++source) {
      to_float(sources[source] + begin * 2, dtype, term, static_cast<int64_t>(length));
      combine(operation, block, term, length);
    }
    from_float(block, target + begin * 2, dtype, static_cast<int64_t>(length));
  }
}

struct DtypeFacts {
  HcclDataType dtype;
  const char* name;
  size_t bytes;
};

constexpr DtypeFacts kDtypes[] = {
    {HCCL_DATA_TYPE_INT8, "int8", 1},           {HCCL_DATA_TYPE_INT16, "int16", 2},
    {HCCL_DATA_TYPE_INT32, "int32", 4},         {HCCL_DATA_TYPE_FP16, "float16", 2},
    {HCCL_DATA_TYPE_FP32, "float32", 4},        {HCCL_DATA_TYPE_INT64, "int64", 8},
    {HCCL_DATA_TYPE_UINT64, "uint64", 8},       {HCCL_DATA_TYPE_UINT8, "uint8", 1},
    {HCCL_DATA_TYPE_UINT16, "uint16", 2},       {HCCL_DATA_TYPE_UINT32, "uint32", 4},
    {HCCL_DATA_TYPE_FP64, "float64", 8},        {HCCL_DATA_TYPE_BFP16, "bfloat16", 2},
    {HCCL_DATA_TYPE_HIF8, "hifloat8", 1},       {HCCL_DATA_TYPE_FP8E4M3, "float8_e4m3", 1},
    {HCCL_DATA_TYPE_FP8E5M2, "float8_e5m2", 1}, {HCCL_DATA_TYPE_FP8E8M0, "float8_e8m0", 1},
};

const DtypeFacts& facts_of(HcclDataType dtype) {
  for (const auto& facts : kDtypes) {
    if (facts.dtype == dtype) return facts;
  }
  fail(HCCL_E_PARA, "data type %d is unknown", dtype);
}

}  // namespace

size_t element_bytes(HcclDataType dtype) { return facts_of(dtype).bytes; }

const char* name_of(HcclDataType dtype) { return facts_of(dtype).name; }

const char* name_of(HcclReduceOp operation) {
  switch (operation) {
    case HCCL_REDUCE_SUM: return "sum";
    case HCCL_REDUCE_PROD: return "prod";
    case HCCL_REDUCE_MAX: return "max";
    case HCCL_REDUCE_MIN: return "min";
    default: return "unknown";
  }
}

void reduce(HcclReduceOp operation, HcclDataType dtype, const char* const* sources, size_t source_count, char* target,
            uint64_t count) {
  switch (dtype) {
    case HCCL_DATA_TYPE_INT8: return reduce_native<int8_t>(operation, sources, source_count, target, count);
    case HCCL_DATA_TYPE_INT16: return reduce_native<int16_t>(operation, sources, source_count, target, count);
    case HCCL_DATA_TYPE_INT32: return reduce_native<int32_t>(operation, sources, source_count, target, count);
    case HCCL_DATA_TYPE_INT64: return reduce_native<int64_t>(operation, sources, source_count, target, count);
    case HCCL_DATA_TYPE_UINT64: return reduce_native<uint64_t>(operation, sources, source_count, target, count);
    case HCCL_DATA_TYPE_FP32: return reduce_native<float>(operation, sources, source_count, target, count);
    case HCCL_DATA_TYPE_FP64: return reduce_native<double>(operation, sources, source_count, target, count);
    case HCCL_DATA_TYPE_FP16: return reduce_half(operation, ACL_FLOAT16, sources, source_count, target, count);
    case HCCL_DATA_TYPE_BFP16: return reduce_half(operation, ACL_BF16, sources, source_count, target, count);
    default: fail(HCCL_E_NOT_SUPPORT, "%s cannot be reduced", name_of(dtype));
  }
}

}  // namespace emulator::hccl
