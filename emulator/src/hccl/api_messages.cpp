// HCCL's point-to-point calls, and groups of calls.
#include <hccl/hccl.h>

#include "hccl/errors.h"
#include "hccl/group.h"
#include "hccl/handles.h"
#include "hccl/reduction.h"
#include "hccl/support.h"

namespace emulator::hccl {
namespace {

Transfer make_transfer(const Communicator& communicator, bool sends, void* data, uint64_t count, HcclDataType dtype,
                       uint32_t peer) {
  check_moved_dtype(sends ? Operation::kSend : Operation::kReceive, dtype);
  if (peer >= communicator.size())
    fail(HCCL_E_PARA, "EI0003: peer %u is not a rank below %u.", peer, communicator.size());
  const uint64_t bytes = size_of(count, dtype);
  require_buffer(data, bytes, sends ? "sendBuf" : "recvBuf");
  return {sends, peer, static_cast<char*>(data), bytes};
}

void send_or_receive(Operation kind, void* data, uint64_t count, HcclDataType dtype, uint32_t peer, HcclComm handle,
                     aclrtStream stream) {
  const auto communicator = find_communicator(handle);
  check_operation(kind, communicator->size());
  const Transfer message = make_transfer(*communicator, kind == Operation::kSend, data, count, dtype, peer);
  if (in_group()) return add_message(communicator, stream, message);
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
    if (in_group()) fail(HCCL_E_NOT_SUPPORT, "HcclBatchSendRecv cannot be called within a group.");
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

HcclResult HcclGroupStart() { return hccl_guarded("HcclGroupStart", start_group); }

HcclResult HcclGroupEnd() { return hccl_guarded("HcclGroupEnd", end_group); }

}  // extern "C"
