// Gated activations of rows [gate, value]: silu(gate) * value, fp32 inside, one rounding.
#pragma once

#include <acl/acl.h>

#include <cstdint>

namespace emulator {

struct Swiglu {
  int64_t rows = 0;
  int64_t width = 0;  // of y; a row of x is twice as wide
  aclDataType dtype = ACL_FLOAT16;
  const void* x = nullptr;
  void* y = nullptr;
};

void swiglu(const Swiglu& op);

// y[i] = silu(gate[i]) * value[i]
void swiglu_row(const float* gate, const float* value, float* y, int64_t width);

}  // namespace emulator
