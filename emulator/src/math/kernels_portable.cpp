// The inner loops in plain vectors of four: NEON on aarch64, SSE2 on x86-64.
#include <cstring>

#define EMULATOR_SIMD 128
#include "math/kernels_body.h"

namespace emulator {
const Kernels* portable_kernels() {
  static constexpr Kernels kTable = table("portable");
  return &kTable;
}
}  // namespace emulator
