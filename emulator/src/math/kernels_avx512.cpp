// The inner loops for AVX-512.
#include "math/kernels.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

#include <acl/acl.h>

#include <cstring>

#include "core/half.h"

// GCC 12 takes the deliberately undefined operand inside its own AVX-512 intrinsics for a bug (GCC PR 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#define EMULATOR_SIMD 512
#include "math/kernels_body.h"

namespace emulator {
const Kernels* avx512_kernels() {
  static constexpr Kernels kTable = table("avx512");
  return &kTable;
}
}  // namespace emulator

#else

namespace emulator {
const Kernels* avx512_kernels() { return nullptr; }
}  // namespace emulator

#endif
