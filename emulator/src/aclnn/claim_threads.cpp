// libopapi is the one library that is linked with torch, so it tells the arithmetic how many threads torch allows.
#include <ATen/Parallel.h>
#include <omp.h>

#include "math/parallel.h"

namespace emulator::aclnn {

namespace {

int64_t claim_threads() {
  const int64_t threads = at::get_num_threads();
  omp_set_num_threads(1);
  return threads;
}

[[gnu::constructor]] void hand_in() { set_claim_threads(&claim_threads); }

}  // namespace

}  // namespace emulator::aclnn
