// HCCL's point-to-point calls. Between HcclGroupStart and HcclGroupEnd a thread collects them; the group then makes
// progress as one task for each communicator and stream, so that the order within it cannot deadlock.
#include <hccl/hccl.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "core/tensor.h"
#include "hccl/errors.h"
#include "hccl/handles.h"
#include "hccl/operation_task.h"
#include "hccl/reduction.h"
#include "hccl/support.h"

namespace emulator::hccl {
namespace {

// A message as queued: with device addresses, which are translated when it runs.
using Messages = std::vector<Transfer>;

struct Batch {
  std::shared_ptr<Communicator> communicator;
  aclrtStream stream;
  Messages messages;
};

// Batches in the order of their first messages: every rank has the same one, as it has not of addresses. Ranks that
// began with different communicators would wait for each other.
struct Group {
  int depth = 0;
  std::vector<Batch> batches;

  void add(const std::shared_ptr<Communicator>& communicator, aclrtStream stream, const Transfer& message) {
    const auto found = std::find_if(batches.begin(), batches.end(), [&](const Batch& batch) {
      return batch.communicator == communicator && batch.stream == stream;
    });
    if (found != batches.end()) {
      found->messages.push_back(message);
    } else {
      batches.push_back({communicator, stream, {message}});
    }
  }
};

Group& group() {
  thread_local Group collected;
  return collected;
}

Transfer make_transfer(const Communicator& communicator, bool sends, void* data, uint64_t count, HcclDataType dtype,
                       uint32_t peer) {
  check_moved_dtype(sends ? Operation::kSend : Operation::kReceive, dtype);
  if (peer >= communicator.size())
    fail(HCCL_E_PARA, "EI0003: peer %u is not a rank below %u.", peer, communicator.size());
  const uint64_t bytes = size_of(count, dtype);
  require_buffer(data, bytes, sends ? "sendBuf" : "recvBuf");
  return {sends, peer, static_cast<char*>(data), bytes};
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

void send_or_receive(Operation kind, void* data, uint64_t count, HcclDataType dtype, uint32_t peer, HcclComm handle,
                     aclrtStream stream) {
  const auto communicator = find_communicator(handle);
  check_operation(kind, communicator->size());
  const Transfer message = make_transfer(*communicator, kind == Operation::kSend, data, count, dtype, peer);
  if (group().depth > 0) {
    group().add(communicator, stream, message);
    return;
  }
  if (peer == communicator->rank())
    fail(HCCL_E_PARA, "EI0003: rank %u cannot exchange a single message with itself.", peer);
  submit_messages(communicator, kind, stream, {message});
}

}  // namespace
}  // namespace emulator::hccl

using namespace emulator;
using namespace emulator::hccl;

extern "C" {

HcclResult HcclSend(void* data, uint64_t count, HcclDataType dtype, uint32_t peer, HcclComm handle,
                    aclrtStream stream) {
  return hccl_guarded("HcclSend", [&] { send_or_receive(Operation::kSend, data, count, dtype, peer, handle, stream); });
}

HcclResult HcclRecv(void* data, uint64_t count, HcclDataType dtype, uint32_t peer, HcclComm handle,
                    aclrtStream stream) {
  return hccl_guarded("HcclRecv",
                      [&] { send_or_receive(Operation::kReceive, data, count, dtype, peer, handle, stream); });
}

HcclResult HcclBatchSendRecv(HcclSendRecvItem* items, uint32_t count, HcclComm handle, aclrtStream stream) {
  return hccl_guarded("HcclBatchSendRecv", [&] {
    const auto communicator = find_communicator(handle);
    check_operation(Operation::kBatchSendReceive, communicator->size());
    if (items == nullptr || count == 0) fail(HCCL_E_PARA, "EI0003: there are no items.");
    Messages messages;
    for (uint32_t i = 0; i < count; ++i) {
      messages.push_back(make_transfer(*communicator, items[i].sendRecvType == HCCL_SEND, items[i].buf, items[i].count,
                                       items[i].dataType, items[i].remoteRank));
    }
    submit_messages(communicator, Operation::kBatchSendReceive, stream, messages);
  });
}

HcclResult HcclGroupStart() {
  ++group().depth;
  return HCCL_SUCCESS;
}

HcclResult HcclGroupEnd() {
  return hccl_guarded("HcclGroupEnd", [] {
    if (group().depth == 0) fail(HCCL_E_PARA, "there is no group to end.");
    if (--group().depth > 0) return;
    const auto collected = std::exchange(group().batches, {});
    for (const auto& [communicator, stream, messages] : collected) {
      submit_messages(communicator, Operation::kBatchSendReceive, stream, messages);
    }
  });
}

}  // extern "C"
