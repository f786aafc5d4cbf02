// Phase-1 checks of operators that are one ATen function: the kernel itself, run on tensors that have no memory. ATen then
// works out sizes and types, and what it refuses - a dimension that does not exist, sizes that do not fit one another, an
// output of other sizes than the result - is refused before anything is launched, as CANN does.
#pragma once

#include "aclnn/operator.h"

namespace emulator::aclnn {

// True on this thread while infer() runs: as_aten() then gives tensors of the device "meta".
bool is_inferring();

// Throws Failure(161002) for what the kernel cannot do. For kernels that touch tensors through ATen alone.
void infer(const Operator& op, const void* args);

}  // namespace emulator::aclnn
