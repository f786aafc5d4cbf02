// The choice of instruction set.
#include "math/kernels.h"

#include <cstdlib>
#include <string_view>

#include "core/errors.h"

namespace emulator {

namespace {

bool cpu_has_avx512() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
#else
  return false;
#endif
}

bool cpu_has_avx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
#else
  return false;
#endif
}

const Kernels* choose() {
  const char* wish = std::getenv("ASCEND_EMULATOR_SIMD");
  const std::string_view limit = wish == nullptr ? "avx512" : wish;
  if (limit != "avx512" && limit != "avx2" && limit != "portable") {
    fail(kInvalidParam, "ASCEND_EMULATOR_SIMD is '%s'; it may be avx512, avx2 or portable.", wish);
  }
  if (limit == "avx512" && cpu_has_avx512() && avx512_kernels() != nullptr) return avx512_kernels();
  if (limit != "portable" && cpu_has_avx2() && avx2_kernels() != nullptr) return avx2_kernels();
  return portable_kernels();
}

}  // namespace

const Kernels& kernels() {
  static const Kernels* const chosen = choose();
  return *chosen;
}

}  // namespace emulator
