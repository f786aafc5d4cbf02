// A collective or a message as a task of its stream.
#pragma once

#include <acl/acl.h>

#include <functional>
#include <memory>

#include "hccl/communicator.h"

namespace emulator::hccl {

struct Traffic {
  uint64_t sent_bytes = 0;
  uint64_t received_bytes = 0;
};

// Queues body, which uses the communicator, at once or when the thread's group ends; the task keeps it alive. Its
// failures become the communicator's asynchronous error besides failing the stream.
void submit_operation(std::shared_ptr<Communicator> communicator, Operation operation, aclrtStream stream,
                      Traffic traffic, std::function<void()> body);

}  // namespace emulator::hccl
