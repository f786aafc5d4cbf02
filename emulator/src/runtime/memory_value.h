// Writing a 64-bit value into device memory, and waiting for one, in stream order. torch_npu builds its external
// events from these: replayed graphs wait for a value that an update stream writes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emulator {

class Stream;

void write_value(Stream& stream, void* address, uint64_t value);
// condition: ACL_STREAM_WAIT_VALUE_GEQ, EQ, AND (any bit) or NOR (not all bits). Throws Failure(107000) for others.
void wait_for_value(Stream& stream, void* address, uint64_t value, uint32_t condition);

// The range is given back: when its values were written says nothing about the next owner's.
void forget_written_values(const void* address, size_t size_bytes);

}  // namespace emulator
