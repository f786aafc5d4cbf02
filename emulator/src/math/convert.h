// Float16, bfloat16 and float32 rows to float32 and back (round to nearest even), vectorised for the CPU at hand.
#pragma once

#include <acl/acl.h>

#include <cstdint>

namespace emulator {

// Sources: float16, bfloat16, float32, int8, uint8, int32, int64. Throws Failure for any other type.
void to_float(const void* source, aclDataType dtype, float* target, int64_t count);

// Targets: float16, bfloat16, float32; int8 rounds to nearest even and saturates.
void from_float(const float* source, void* target, aclDataType dtype, int64_t count);

// A scalar of the same source types.
float load_float(const void* source, aclDataType dtype, int64_t index);

}  // namespace emulator
