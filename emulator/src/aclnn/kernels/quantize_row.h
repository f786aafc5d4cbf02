// Dynamic quantization of one row, as the fused operators end with it.
#pragma once

#include <cstdint>

namespace emulator::aclnn {

// y = round(x * smooth / scale) with scale = largest magnitude / 127, which is returned; a row of zeros stays one.
// `smooth` may be null, and so may y.
float quantize_row(const float* x, const float* smooth, int64_t count, int8_t* y);

}  // namespace emulator::aclnn
