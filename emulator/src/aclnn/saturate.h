// Rule saturation: a chip without infinities gives the largest finite number instead, and 0 instead of NaN.
#pragma once

#include "aclnn/operator.h"

namespace emulator::aclnn {

void saturate_results(const Operator& op, const void* args);

}  // namespace emulator::aclnn
