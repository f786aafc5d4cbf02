// Emulated device memory: one range of addresses for all chips, so that telling a device address is a comparison.
#pragma once

#include <cstddef>

namespace emulator {

bool is_device_address(const void* address);

// Throws Failure(107000) unless every byte of the range is allocated device memory (runtime/allocations.cpp).
void check_device_range(const void* address, size_t size_bytes, const char* argument);

// Zeroes device memory. Large ranges are given back to the operating system, which hands out zero pages again when
// they are touched: a cleared 40 GiB KV cache must not need 40 GiB of the host.
void fill_zero(void* device_address, size_t size_bytes);

}  // namespace emulator
