#include "aclop/operand.h"

#include <cmath>
#include <cstring>

#include "core/errors.h"
#include "core/memory.h"
#include "math/convert.h"

namespace emulator::aclop {

Dense make_dense(aclDataType dtype, const Dims& sizes) {
  return {dtype, sizes, std::vector<char>(static_cast<size_t>(size_in_bytes(sizes, dtype)))};
}

aclFormat storage_format(const aclTensorDesc& desc) {
  return desc.storage_format == ACL_FORMAT_UNDEFINED ? desc.format : desc.storage_format;
}

bool is_row_major(aclFormat format) {
  return format == ACL_FORMAT_ND || format == ACL_FORMAT_NCHW || format == ACL_FORMAT_NCDHW ||
         format == ACL_FORMAT_NCL || format == ACL_FORMAT_NC;
}

int64_t storage_bytes(const aclTensorDesc& desc) {
  return size_in_bytes(desc.storage_sizes.empty() ? desc.sizes : desc.storage_sizes, desc.dtype);
}

FractalMatrix fractal_storage(void* data, const aclTensorDesc& desc, const Dims& sizes) {
  if (sizes.rank() < 2 || !(desc.storage_sizes == fractal_storage_sizes(sizes, desc.dtype))) {
    fail(ACL_ERROR_INVALID_PARAM, "the storage shape of the FRACTAL_NZ tensor does not fit its %d-dimensional shape.",
         sizes.rank());
  }
  FractalMatrix matrix;
  matrix.data = data;
  matrix.element_bytes = element_bits(desc.dtype) / 8;
  matrix.rows = sizes.back(1);
  matrix.cols = sizes.back(0);
  matrix.padded_rows = round_up(matrix.rows, kFractalRows);
  matrix.c0 = fractal_c0(desc.dtype);
  matrix.batch = matrix.rows * matrix.cols == 0 ? 0 : sizes.product() / (matrix.rows * matrix.cols);
  return matrix;
}

void check_buffer(const aclDataBuffer& buffer, size_t size_bytes, const char* what) {
  if (size_bytes == 0) return;
  if (size_bytes > buffer.size_bytes) {
    fail(ACL_ERROR_INVALID_PARAM, "%s takes %zu bytes, but its buffer has %zu.", what, size_bytes, buffer.size_bytes);
  }
  check_device_range(buffer.data, size_bytes, what);
}

void check_operand(const Operand& operand, const char* what) {
  const aclFormat format = storage_format(operand.desc);
  const auto size_bytes = static_cast<size_t>(storage_bytes(operand.desc));
  if (operand.on_host()) {
    if (operand.host.size() < size_bytes)
      fail(ACL_ERROR_INVALID_PARAM, "%s takes %zu bytes, but its buffer has %zu.", what, size_bytes,
           operand.host.size());
    return;
  }
  if (format == ACL_FORMAT_FRACTAL_NZ) {
    fractal_storage(nullptr, operand.desc, operand.desc.sizes);
  } else if (!is_row_major(format)) {
    fail(ACL_ERROR_FORMAT_NOT_MATCH, "%s is %s, which the emulator does not read.", what, format_name(format));
  } else if (storage_bytes(operand.desc) < size_in_bytes(operand.desc.sizes, operand.desc.dtype)) {
    fail(ACL_ERROR_INVALID_PARAM, "%s is larger than its storage.", what);
  }
  check_buffer(operand.buffer, size_bytes, what);
}

Dense read(const Operand& operand) {
  Dense values = make_dense(operand.desc.dtype, operand.desc.sizes);
  if (operand.on_host()) {
    std::memcpy(values.bytes.data(), operand.host.data(), values.bytes.size());
    return values;
  }
  void* source = host_address(operand.buffer.data);
  if (storage_format(operand.desc) == ACL_FORMAT_FRACTAL_NZ) {
    nz_to_nd(fractal_storage(source, operand.desc, operand.desc.sizes), values.bytes.data());
  } else if (!values.bytes.empty()) {
    std::memcpy(values.bytes.data(), source, values.bytes.size());
  }
  return values;
}

void write(const Operand& operand, const Dense& values) {
  void* target = host_address(operand.buffer.data);
  if (storage_format(operand.desc) == ACL_FORMAT_FRACTAL_NZ) {
    nd_to_nz(values.bytes.data(), fractal_storage(target, operand.desc, operand.desc.sizes));
  } else if (!values.bytes.empty()) {
    std::memcpy(target, values.bytes.data(), values.bytes.size());
  }
}

namespace {

template <typename T>
T element(const Dense& values, int64_t index) {
  T value;
  std::memcpy(&value, values.bytes.data() + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

template <typename T>
void put(Dense& values, int64_t index, T value) {
  std::memcpy(values.bytes.data() + index * static_cast<int64_t>(sizeof(T)), &value, sizeof(T));
}

[[noreturn]] void refuse(aclDataType dtype) {
  fail(ACL_ERROR_INVALID_PARAM, "the emulator's older operators do not take %s.", dtype_name(dtype));
}

// Towards zero, and to the type's limits beyond them, as the vector unit converts; a NaN is 0.
int64_t saturated(double number, aclDataType dtype) {
  if (std::isnan(number)) return 0;
  const int64_t bits = element_bits(dtype);
  const bool is_signed = dtype != ACL_UINT8;
  const double most = std::ldexp(1.0, static_cast<int>(is_signed ? bits - 1 : bits));
  const double least = is_signed ? -most : 0;
  if (number <= least) return bits == 64 ? INT64_MIN : static_cast<int64_t>(least);
  if (number >= most) return bits == 64 ? INT64_MAX : static_cast<int64_t>(most) - 1;
  return static_cast<int64_t>(number);
}

}  // namespace

bool is_whole(aclDataType dtype) {
  switch (dtype) {
    case ACL_BOOL:
    case ACL_INT8:
    case ACL_UINT8:
    case ACL_INT16:
    case ACL_INT32:
    case ACL_INT64:
      return true;
    case ACL_FLOAT16:
    case ACL_BF16:
    case ACL_FLOAT:
    case ACL_DOUBLE:
      return false;
    default:
      refuse(dtype);
  }
}

int64_t whole_at(const Dense& values, int64_t index) {
  switch (values.dtype) {
    case ACL_BOOL:
      return element<uint8_t>(values, index) != 0;
    case ACL_INT8:
      return element<int8_t>(values, index);
    case ACL_UINT8:
      return element<uint8_t>(values, index);
    case ACL_INT16:
      return element<int16_t>(values, index);
    case ACL_INT32:
      return element<int32_t>(values, index);
    case ACL_INT64:
      return element<int64_t>(values, index);
    default:
      return static_cast<int64_t>(number_at(values, index));  // towards zero
  }
}

double number_at(const Dense& values, int64_t index) {
  switch (values.dtype) {
    case ACL_FLOAT16:
    case ACL_BF16:
    case ACL_FLOAT:
      return load_float(values.bytes.data(), values.dtype, index);
    case ACL_DOUBLE:
      return element<double>(values, index);
    default:
      if (!is_whole(values.dtype)) refuse(values.dtype);
      return static_cast<double>(whole_at(values, index));
  }
}

void put_whole(Dense& values, int64_t index, int64_t number) {
  switch (values.dtype) {
    case ACL_BOOL:
      return put<uint8_t>(values, index, number != 0);
    case ACL_INT8:
      return put(values, index, static_cast<int8_t>(number));
    case ACL_UINT8:
      return put(values, index, static_cast<uint8_t>(number));
    case ACL_INT16:
      return put(values, index, static_cast<int16_t>(number));
    case ACL_INT32:
      return put(values, index, static_cast<int32_t>(number));
    case ACL_INT64:
      return put(values, index, number);
    default:
      return put_number(values, index, static_cast<double>(number));
  }
}

void put_number(Dense& values, int64_t index, double number) {
  switch (values.dtype) {
    case ACL_FLOAT16:
    case ACL_BF16:
    case ACL_FLOAT: {
      const auto rounded = static_cast<float>(number);
      return from_float(&rounded, values.bytes.data() + index * element_bits(values.dtype) / 8, values.dtype, 1);
    }
    case ACL_DOUBLE:
      return put(values, index, number);
    case ACL_BOOL:
      return put<uint8_t>(values, index, number != 0);
    default:
      if (!is_whole(values.dtype)) refuse(values.dtype);
      return put_whole(values, index, saturated(number, values.dtype));
  }
}

}  // namespace emulator::aclop
