// Emulated device memory: one range of addresses for all chips, so that telling a device address is a comparison.
#pragma once

#include <cstddef>

namespace emulator {

bool is_device_address(const void* address);

// Zeroes device memory. Large ranges are given back to the operating system, which hands out zero pages again when
// they are touched: a cleared 40 GiB KV cache must not need 40 GiB of the host.
void fill_zero(void* device_address, size_t size_bytes);

}  // namespace emulator
