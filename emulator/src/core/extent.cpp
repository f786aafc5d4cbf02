#include "core/extent.h"

#include <algorithm>
#include <string>

#include "core/errors.h"
#include "core/memory.h"

namespace emulator {
namespace {

std::string listed(const Dims& sizes) {
  std::string text;
  for (const int64_t size : sizes) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "[" + text + "]";
}

// As if no size were 0: ATen multiplies from the left and refuses what overflows on the way.
void check_empty(const TensorView& tensor, const char* name) {
  int64_t count = 1;
  for (const int64_t size : tensor.sizes) {
    if (!__builtin_mul_overflow(count, std::max<int64_t>(size, 1), &count)) continue;
    fail(kParamInvalid, "%s has sizes %s, whose product overflows.", name, listed(tensor.sizes).c_str());
  }
}

}  // namespace

int64_t reach(const TensorView& tensor, const char* name) {
  if (tensor.strides.rank() != tensor.rank()) {
    fail(kParamInvalid, "%s has %d sizes, but %d strides.", name, tensor.rank(), tensor.strides.rank());
  }
  int64_t last = tensor.storage_offset;
  bool overflows = last < 0, empty = false;
  for (int i = 0; i < tensor.rank(); ++i) {
    const int64_t size = tensor.sizes[i], stride = tensor.strides[i];
    if (size < 0 || stride < 0) {
      fail(kParamInvalid, "%s has size %lld and stride %lld in dimension %d; neither may be negative.", name,
           static_cast<long long>(size), static_cast<long long>(stride), i);
    }
    empty |= size == 0;
    int64_t step = 0;
    overflows |= __builtin_mul_overflow(std::max<int64_t>(size - 1, 0), stride, &step);
    overflows |= __builtin_add_overflow(last, step, &last);
  }
  if (empty) return 0;
  if (overflows || __builtin_add_overflow(last, 1, &last)) {
    fail(kParamInvalid, "%s (sizes %s, strides %s, offset %lld) reaches beyond any storage.", name,
         listed(tensor.sizes).c_str(), listed(tensor.strides).c_str(), static_cast<long long>(tensor.storage_offset));
  }
  return last;
}

void check_device_memory(const TensorView& tensor, const char* name, int64_t bits, aclError code) {
  try {
    check_device_range(tensor.base, static_cast<size_t>((bits + 7) / 8), name);
  } catch (const Failure& failure) {
    throw Failure(code, failure.what());
  }
}

void check_extent(const TensorView& tensor, const char* name) {
  const int64_t reached = reach(tensor, name);
  if (reached == 0) return check_empty(tensor, name);
  if (tensor.base == nullptr) {
    fail(kParamNullptr, "%s has %lld elements at a null address.", name, static_cast<long long>(tensor.numel()));
  }
  for (const int64_t size : tensor.storage_sizes) {
    if (size < 0) fail(kParamInvalid, "%s has a storage of sizes %s.", name, listed(tensor.storage_sizes).c_str());
  }
  const int64_t stored = tensor.storage_sizes.product();
  // Of FRACTAL_NZ the strides are those of a matrix that is not stored; math/nz.h compares its sizes with the storage.
  if (reached > stored && !tensor.is_fractal_nz()) {
    fail(kParamInvalid, "%s (sizes %s, strides %s, offset %lld) ends at element %lld of a storage of %lld.", name,
         listed(tensor.sizes).c_str(), listed(tensor.strides).c_str(), static_cast<long long>(tensor.storage_offset),
         static_cast<long long>(reached), static_cast<long long>(stored));
  }
  int64_t bits = 0;
  if (__builtin_mul_overflow(tensor.is_fractal_nz() ? stored : reached, element_bits(tensor.dtype), &bits)) {
    fail(kParamInvalid, "%s has a storage of %lld elements, more than any device has.", name,
         static_cast<long long>(stored));
  }
  check_device_memory(tensor, name, bits, kParamInvalid);
}

}  // namespace emulator
