#include "hccl/support.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <initializer_list>

#include "core/chips.h"
#include "core/errors.h"
#include "core/forms.h"
#include "hccl/reduction.h"
#include "runtime/allocations.h"

namespace emulator::hccl {
namespace {

template <typename T>
bool among(T value, std::initializer_list<T> values) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

bool on_atlas_inference() { return chip().product == kAtlasInference; }

int64_t setting(const char* variable, int64_t fallback, int64_t least, int64_t most) {
  const char* text = getenv(variable);
  if (text == nullptr || *text == '\0') return fallback;
  char* end = nullptr;
  errno = 0;
  const long long value = strtoll(text, &end, 10);
  if (*end != '\0' || errno != 0 || value < least || value > most) {
    fail(HCCL_E_PARA, "EI0001: %s is %s, but it must be a whole number of seconds from %lld to %lld.", variable, text,
         (long long)least, (long long)most);
  }
  return value;
}

}  // namespace

void check_operation(Operation operation, uint32_t ranks) {
  if (!on_atlas_inference()) return;
  if (among(operation, {Operation::kBroadcast, Operation::kReduce, Operation::kScatter, Operation::kSend,
                        Operation::kReceive, Operation::kBatchSendReceive, Operation::kAllToAllVC})) {
    fail(HCCL_E_NOT_SUPPORT, "%s is not supported on Atlas inference products (%s).", name_of(operation),
         chip().soc_version);
  }
  const bool four_only = among(
      operation, {Operation::kAllGatherV, Operation::kReduceScatterV, Operation::kAllToAll, Operation::kAllToAllV});
  const uint32_t most = four_only ? 4 : 32;
  if (ranks > most) {
    fail(HCCL_E_NOT_SUPPORT, "%s supports at most %u NPUs on %s, but the communicator has %u ranks.",
         name_of(operation), most, chip().soc_version, ranks);
  }
}

namespace {

void record(Operation operation, HcclDataType dtype) {
  if (records_forms()) record_form(std::string(name_of(operation)) + " data=" + name_of(dtype));
}

}  // namespace

void check_moved_dtype(Operation operation, HcclDataType dtype) {
  const bool is_float8 = dtype == HCCL_DATA_TYPE_HIF8 || dtype == HCCL_DATA_TYPE_FP8E4M3 ||
                         dtype == HCCL_DATA_TYPE_FP8E5M2 || dtype == HCCL_DATA_TYPE_FP8E8M0;
  element_bytes(dtype);
  if ((dtype == HCCL_DATA_TYPE_BFP16 && !chip().has_bf16) || (is_float8 && !chip().has_fp8)) {
    fail(HCCL_E_NOT_SUPPORT, "%s does not support %s on %s.", name_of(operation), name_of(dtype), chip().soc_version);
  }
  record(operation, dtype);
}

void check_reduction(Operation operation, HcclDataType dtype, HcclReduceOp reduction) {
  const bool variable = operation == Operation::kReduceScatterV;
  bool permitted;
  if (on_atlas_inference() && variable) {
    permitted =
        reduction == HCCL_REDUCE_SUM && among(dtype, {HCCL_DATA_TYPE_INT16, HCCL_DATA_TYPE_FP16, HCCL_DATA_TYPE_FP32});
  } else if (on_atlas_inference()) {
    permitted = among(dtype, {HCCL_DATA_TYPE_INT8, HCCL_DATA_TYPE_INT16, HCCL_DATA_TYPE_INT32, HCCL_DATA_TYPE_FP16,
                              HCCL_DATA_TYPE_FP32}) &&
                (dtype != HCCL_DATA_TYPE_INT16 || reduction == HCCL_REDUCE_SUM);
  } else {
    const bool wide = among(dtype, {HCCL_DATA_TYPE_UINT64, HCCL_DATA_TYPE_FP64});
    permitted = among(dtype, {HCCL_DATA_TYPE_INT8, HCCL_DATA_TYPE_INT16, HCCL_DATA_TYPE_INT32, HCCL_DATA_TYPE_INT64,
                              HCCL_DATA_TYPE_FP16, HCCL_DATA_TYPE_FP32, HCCL_DATA_TYPE_BFP16}) ||
                (wide && chip().product == kA5);
    if (reduction == HCCL_REDUCE_PROD) {
      permitted = permitted && !variable && dtype != HCCL_DATA_TYPE_INT16 && dtype != HCCL_DATA_TYPE_BFP16;
    }
    if (variable && chip().product == kA2 && dtype == HCCL_DATA_TYPE_INT64) permitted = false;
  }
  if (reduction < HCCL_REDUCE_SUM || reduction > HCCL_REDUCE_MIN) permitted = false;
  if (!permitted) {
    fail(HCCL_E_NOT_SUPPORT, "%s does not support the %s of %s on %s.", name_of(operation), name_of(reduction),
         name_of(dtype), chip().soc_version);
  }
  record(operation, dtype);
}

uint64_t size_of(uint64_t count, HcclDataType dtype) {
  const uint64_t unit = element_bytes(dtype);
  if (count > (uint64_t{1} << 48) / unit) {
    fail(HCCL_E_PARA, "EI0003: %llu elements of %s do not fit into any device.", (unsigned long long)count,
         name_of(dtype));
  }
  return count * unit;
}

void require_buffer(const void* buffer, uint64_t bytes, const char* name) {
  if (bytes == 0) return;
  if (buffer == nullptr) fail(HCCL_E_PTR, "EI0003: %s is null.", name);
  if (!is_device_range(buffer, bytes)) {
    fail(HCCL_E_PARA, "EI0003: %s (%p, %llu bytes) is not allocated device memory.", name, buffer,
         (unsigned long long)bytes);
  }
}

// Atlas inference products count in steps of 68 s (hccl docs, HCCL_EXEC_TIMEOUT).
int64_t execute_timeout_s(int32_t configured) {
  const bool coarse = on_atlas_inference();
  const int64_t seconds =
      configured > 0 ? configured : setting("HCCL_EXEC_TIMEOUT", 1836, coarse ? 1 : 0, coarse ? 17340 : INT32_MAX);
  return coarse ? std::max<int64_t>(seconds / 68 * 68, 68) : seconds;
}

// HCCL grants 20 s more, in which ranks tell each other why they failed.
int64_t connect_timeout_s() { return setting("HCCL_CONNECT_TIMEOUT", 120, 120, 7200) + 20; }

}  // namespace emulator::hccl
