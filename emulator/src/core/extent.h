// Where the elements of a tensor lie: whatever a descriptor says, a kernel must stay in memory that the program has.
#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace emulator {

// Elements from the storage's first to the view's last, both included; 0 for a view without elements. Throws
// Failure(161002) if it has a negative size, stride or offset, or reaches beyond 63 bits.
int64_t reach(const TensorView& tensor, const char* name);

// Throws Failure(code) unless so many bits from the tensor's base on are allocated device memory.
void check_device_memory(const TensorView& tensor, const char* name, int64_t bits, aclError code);

// Throws Failure(161002; 161001 for a null address) unless what a kernel may touch lies in the storage, and the storage
// in device memory.
void check_extent(const TensorView& tensor, const char* name);

}  // namespace emulator
