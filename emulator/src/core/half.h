// float16 and bfloat16 to float and back, one value at a time: for scalars and descriptors, not for kernels.
#pragma once

#include <cstdint>

namespace emulator {

float float_from_half(uint16_t half);
uint16_t half_from_float(float value);  // rounds to nearest even
float float_from_bfloat16(uint16_t value);

}  // namespace emulator
