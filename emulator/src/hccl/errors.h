// How a failure leaves libhccl: as HCCL's result code, with one line on stderr that states the rule or the peer.
#pragma once

#include <hccl/hccl.h>

#include "core/errors.h"

namespace emulator {

// HCCL's result for the runtime's code of a failed operation, or for an HcclResult itself.
HcclResult hccl_result_of(aclError code);

// The result of the exception in flight. Call inside a catch block only.
HcclResult report_hccl_failure(const char* function) noexcept;

template <typename Body>
HcclResult hccl_guarded(const char* function, Body&& body) noexcept {
  try {
    refuse_after_fork();
    body();
    return HCCL_SUCCESS;
  } catch (...) {
    return report_hccl_failure(function);
  }
}

}  // namespace emulator
