// The inner loops for AVX2 with FMA and F16C.
#include "math/kernels.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

#include <acl/acl.h>

#include <cstring>

#include "core/half.h"

#pragma GCC target("avx2,fma,f16c")
#define EMULATOR_SIMD 256
#include "math/kernels_body.h"

namespace emulator {
const Kernels* avx2_kernels() {
  static constexpr Kernels kTable = table("avx2");
  return &kTable;
}
}  // namespace emulator

#else

namespace emulator {
const Kernels* avx2_kernels() { return nullptr; }
}  // namespace emulator

#endif
