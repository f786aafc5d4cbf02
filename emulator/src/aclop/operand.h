// Inputs and outputs of an aclop operator: their descriptions by value, and their elements as row-major arrays.
#pragma once

#include <acl/acl.h>

#include <vector>

#include "core/descriptors.h"
#include "math/nz.h"

namespace emulator::aclop {

struct Operand {
  aclTensorDesc desc;
  aclDataBuffer buffer;
  std::vector<char> host;  // an input in host memory, which is the caller's again when the call returns

  bool on_host() const { return desc.placement != ACL_MEMTYPE_DEVICE; }
};

// The elements of a tensor, one row after another.
struct Dense {
  aclDataType dtype = ACL_DT_UNDEFINED;
  Dims sizes;
  std::vector<char> bytes;

  int64_t count() const { return sizes.product(); }
};

Dense make_dense(aclDataType dtype, const Dims& sizes);  // of zeros

aclFormat storage_format(const aclTensorDesc& desc);
bool is_row_major(aclFormat format);  // it names axes, but leaves a contiguous tensor where it is
int64_t storage_bytes(const aclTensorDesc& desc);

// The matrices of a tensor stored in FRACTAL_NZ; `sizes` are those of its row-major form.
FractalMatrix fractal_storage(void* data, const aclTensorDesc& desc, const Dims& sizes);

// Throws Failure unless the buffer has the bytes, and they are device memory.
void check_buffer(const aclDataBuffer& buffer, size_t size_bytes, const char* what);

// Throws Failure for a storage format that is neither row-major nor FRACTAL_NZ, and for a buffer that is too small.
void check_operand(const Operand& operand, const char* what);
Dense read(const Operand& operand);
void write(const Operand& operand, const Dense& values);  // padding of FRACTAL_NZ becomes zero

// Elements as numbers. Real types and bool; throw Failure for others.
bool is_whole(aclDataType dtype);
int64_t whole_at(const Dense& values, int64_t index);
double number_at(const Dense& values, int64_t index);
void put_whole(Dense& values, int64_t index, int64_t number);
void put_number(Dense& values, int64_t index, double number);

}  // namespace emulator::aclop
