#include "math/gated.h"

#include "core/tensor.h"
#include "math/convert.h"
#include "math/kernels.h"
#include "math/parallel.h"
#include "math/scratch.h"

namespace emulator {

namespace {

constexpr int64_t kParallelElements = 16384;

}  // namespace

void swiglu_row(const float* gate, const float* value, float* y, int64_t width) {
  kernels().silu(gate, y, width);
  for (int64_t i = 0; i < width; ++i) y[i] *= value[i];
}

void swiglu(const Swiglu& op) {
  const int64_t bytes = element_bits(op.dtype) / 8;
  parallel_for(0, op.rows, kParallelElements / (op.width + 1) + 1, [&](int64_t begin, int64_t end) {
    float* x = scratch(ScratchSlot::kRow, 2 * op.width);
    float* y = scratch(ScratchSlot::kRowTwo, op.width);
    for (int64_t r = begin; r < end; ++r) {
      to_float(static_cast<const char*>(op.x) + r * 2 * op.width * bytes, op.dtype, x, 2 * op.width);
      swiglu_row(x, x + op.width, y, op.width);
      from_float(y, static_cast<char*>(op.y) + r * op.width * bytes, op.dtype, op.width);
    }
  });
}

}  // namespace emulator
