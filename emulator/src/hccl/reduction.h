// Element-wise reduction of the ranks' data, always in rank order, so that every rank and every run gets the same bits.
#pragma once

#include <hccl/hccl_types.h>

#include <cstddef>
#include <cstdint>

namespace emulator::hccl {

size_t element_bytes(HcclDataType dtype);  // throws Failure for an unknown type
const char* name_of(HcclDataType dtype);
const char* name_of(HcclReduceOp operation);

// target[i] = sources[0][i] op sources[1][i] op ...; target may be one of the sources. float16 and bfloat16 are summed
// in float32 and rounded once: HCCL leaves the order of its roundings open.
void reduce(HcclReduceOp operation, HcclDataType dtype, const char* const* sources, size_t source_count, char* target,
            uint64_t count);

}  // namespace emulator::hccl
