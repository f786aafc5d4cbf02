// What a thread collects between HcclGroupStart and HcclGroupEnd: the calls of either collectives or messages, which
// are queued when the outermost group ends (hccl docs, HcclGroupStart).
#pragma once

#include <acl/acl.h>

#include <memory>
#include <vector>

#include "core/task.h"
#include "hccl/communicator.h"

namespace emulator::hccl {

// Messages as queued: with device addresses, which are translated when they run.
using Messages = std::vector<Transfer>;

void start_group();
// Queues what was collected, if this ends the outermost group: all messages of a communicator as one batch on the
// stream of its first one, so that their order within it cannot deadlock; collectives in the order of their calls, whose
// streams the host then waits for, as hcomm's groupLaunch does (torch_npu has recorded the end of each before).
void end_group();
bool in_group();

void add_message(const std::shared_ptr<Communicator>& communicator, aclrtStream stream, const Transfer& message);
void add_collective(std::shared_ptr<Task> task, aclrtStream stream);

// Queues messages that make progress at once.
void submit_messages(const std::shared_ptr<Communicator>& communicator, Operation kind, aclrtStream stream,
                     const Messages& messages);

}  // namespace emulator::hccl
