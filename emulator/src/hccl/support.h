// What HCCL supports on the emulated chip (the tables of hicann/hccl docs/zh/api_ref/comm_op_interface), and its
// settings.
#pragma once

#include "hccl/communicator.h"

namespace emulator::hccl {

// Throws Failure with an HcclResult, naming operation and rule.
void check_operation(Operation operation, uint32_t ranks);
void check_moved_dtype(Operation operation, HcclDataType dtype);
void check_reduction(Operation operation, HcclDataType dtype, HcclReduceOp reduction);

uint64_t size_of(uint64_t count, HcclDataType dtype);  // in bytes; refuses what no memory holds
// The buffer must be device memory of that size: a rank that reads or writes elsewhere would end the process.
void require_buffer(const void* buffer, uint64_t bytes, const char* name);

// Seconds; environment variables are read once and checked.
int64_t execute_timeout_s(int32_t configured);  // of a communicator's configuration; not positive: HCCL_EXEC_TIMEOUT
int64_t connect_timeout_s();

}  // namespace emulator::hccl
