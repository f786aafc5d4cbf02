// Communicators by the opaque handle that callers hold.
#pragma once

#include <hccl/hccl_types.h>

#include <memory>

#include "hccl/communicator.h"

namespace emulator::hccl {

HcclComm add_handle(std::shared_ptr<Communicator> communicator);
std::shared_ptr<Communicator> find_communicator(HcclComm handle);  // throws Failure for a handle that is not alive
std::shared_ptr<Communicator> remove_handle(HcclComm handle);

}  // namespace emulator::hccl
