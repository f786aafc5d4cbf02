// How long a collective takes once all ranks have come: HCCL's choice of algorithm and its alpha-beta-gamma forms.
#pragma once

#include <cstdint>

#include "core/chips.h"
#include "hccl/communicator.h"

namespace emulator::hccl {

// `size_bytes` are those of the whole buffer: all ranks' parts together. ascend_facts/time_model.py has the same arithmetic.
int64_t collective_cost_ns(const Link& link, Operation operation, uint32_t ranks, double size_bytes);

}  // namespace emulator::hccl
