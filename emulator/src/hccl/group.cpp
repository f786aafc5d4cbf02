#include "hccl/group.h"

#include <hccl/hccl_types.h>

#include <algorithm>
#include <utility>

#include "core/chips.h"
#include "core/task.h"
#include "core/tensor.h"
#include "hccl/errors.h"
#include "hccl/operation_task.h"
#include "hccl/support.h"

namespace emulator::hccl {
namespace {

struct Batch {
  std::shared_ptr<Communicator> communicator;
  aclrtStream stream;
  Messages messages;
};

struct Collective {
  std::shared_ptr<Task> task;
  aclrtStream stream;
};

// Batches in the order of their first messages: every rank has the same one, as it has not of addresses. Ranks that
// began with different communicators would wait for each other.
struct Group {
  int depth = 0;
  std::vector<Batch> batches;
  std::vector<Collective> collectives;
};

Group& group() {
  thread_local Group collected;
  return collected;
}

void refuse_mixture(bool other_kind) {
  if (other_kind)
    fail(HCCL_E_NOT_SUPPORT, "a group is of collectives or of messages, not of both (HcclGroupStart's constraints).");
}

}  // namespace

void start_group() {
  if (chip().product == kAtlasInference || chip().product == kA5)
    fail(HCCL_E_NOT_SUPPORT, "HcclGroupStart is not supported on %s.", chip().soc_version);
  ++group().depth;
}

void end_group() {
  if (group().depth == 0) fail(HCCL_E_NOT_SUPPORT, "there is no group to end: HcclGroupStart was not called.");
  if (--group().depth > 0) return;
  const auto batches = std::exchange(group().batches, {});
  const auto collectives = std::exchange(group().collectives, {});
  for (const Batch& batch : batches)
    submit_messages(batch.communicator, Operation::kBatchSendReceive, batch.stream, batch.messages);
  for (const Collective& collective : collectives) submit(collective.stream, collective.task);
  for (const Collective& collective : collectives) {
    const aclError code = aclrtSynchronizeStream(collective.stream);
    if (code != ACL_SUCCESS) fail(hccl_result_of(code), "a collective of the group failed (%d).", code);
  }
}

bool in_group() { return group().depth > 0; }

void add_message(const std::shared_ptr<Communicator>& communicator, aclrtStream stream, const Transfer& message) {
  refuse_mixture(!group().collectives.empty());
  auto& batches = group().batches;
  const auto found = std::find_if(batches.begin(), batches.end(),
                                  [&](const Batch& batch) { return batch.communicator == communicator; });
  if (found != batches.end()) {
    found->messages.push_back(message);
  } else {
    batches.push_back({communicator, stream, {message}});
  }
}

void add_collective(std::shared_ptr<Task> task, aclrtStream stream) {
  refuse_mixture(!group().batches.empty());
  group().collectives.push_back({std::move(task), stream});
}

void submit_messages(const std::shared_ptr<Communicator>& communicator, Operation kind, aclrtStream stream,
                     const Messages& messages) {
  Traffic traffic;
  for (const Transfer& message : messages)
    (message.sends ? traffic.sent_bytes : traffic.received_bytes) += message.bytes;
  submit_operation(communicator, kind, stream, traffic, [messages, kind, c = communicator.get()] {
    Messages translated = messages;
    for (Transfer& message : translated) message.data = static_cast<char*>(host_address(message.data));
    c->transfer(kind, translated);
  });
}

}  // namespace emulator::hccl
