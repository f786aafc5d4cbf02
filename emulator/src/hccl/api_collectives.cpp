// HCCL's collectives: each call is checked, then queued on its stream as one task.
#include <hccl/hccl.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "core/task.h"
#include "core/tensor.h"
#include "hccl/errors.h"
#include "hccl/handles.h"
#include "hccl/operation_task.h"
#include "hccl/reduction.h"
#include "hccl/support.h"

namespace emulator::hccl {
namespace {

char* cpu(const void* device_address) { return static_cast<char*>(host_address(device_address)); }

void require_pointer(const void* pointer, const char* name) {
  if (pointer == nullptr) fail(HCCL_E_PTR, "EI0003: %s is null.", name);
}

void require_root(const Communicator& communicator, uint32_t root) {
  if (root >= communicator.size())
    fail(HCCL_E_PARA, "EI0003: root %u is not a rank below %u.", root, communicator.size());
}

std::shared_ptr<Communicator> communicator_for(Operation operation, HcclComm handle, HcclDataType dtype) {
  auto communicator = find_communicator(handle);
  check_operation(operation, communicator->size());
  check_moved_dtype(operation, dtype);
  return communicator;
}

Parts equal_parts(uint32_t ranks, uint64_t bytes) {
  Parts parts{std::vector<uint64_t>(ranks, bytes), std::vector<uint64_t>(ranks)};
  for (uint32_t rank = 0; rank < ranks; ++rank) parts.offsets[rank] = rank * bytes;
  return parts;
}

// Counts and displacements are host arrays of uint64, in elements.
Parts given_parts(uint32_t ranks, const void* counts, const void* offsets, HcclDataType dtype) {
  require_pointer(counts, "a count array");
  require_pointer(offsets, "a displacement array");
  Parts parts;
  for (uint32_t rank = 0; rank < ranks; ++rank) {
    parts.bytes.push_back(size_of(static_cast<const uint64_t*>(counts)[rank], dtype));
    parts.offsets.push_back(size_of(static_cast<const uint64_t*>(offsets)[rank], dtype));
  }
  return parts;
}

// The buffer up to the end of its last part.
void require_parts(const void* buffer, const Parts& parts, const char* name) {
  uint64_t end = 0;
  for (size_t rank = 0; rank < parts.bytes.size(); ++rank) {
    if (parts.bytes[rank] > 0) end = std::max(end, parts.offsets[rank] + parts.bytes[rank]);
  }
  require_buffer(buffer, end, name);
}

uint64_t total(const Parts& parts) { return std::accumulate(parts.bytes.begin(), parts.bytes.end(), uint64_t{0}); }

// Row `rank` of the count matrix is what that rank sends; data lie one after another on both sides.
void matrix_parts(const uint64_t* matrix, uint32_t ranks, uint32_t rank, HcclDataType dtype, Parts* sent,
                  Parts* received) {
  uint64_t send_offset = 0, receive_offset = 0;
  for (uint32_t peer = 0; peer < ranks; ++peer) {
    sent->bytes.push_back(size_of(matrix[rank * ranks + peer], dtype));
    sent->offsets.push_back(send_offset);
    send_offset += sent->bytes.back();
    received->bytes.push_back(size_of(matrix[peer * ranks + rank], dtype));
    received->offsets.push_back(receive_offset);
    receive_offset += received->bytes.back();
  }
}

}  // namespace
}  // namespace emulator::hccl

using namespace emulator;
using namespace emulator::hccl;

extern "C" {

HcclResult HcclAllReduce(void* from, void* to, uint64_t count, HcclDataType dtype, HcclReduceOp reduction,
                         HcclComm handle, aclrtStream stream) {
  return hccl_guarded("HcclAllReduce", [&] {
    const auto communicator = communicator_for(Operation::kAllReduce, handle, dtype);
    check_reduction(Operation::kAllReduce, dtype, reduction);
    if (count == 0) return;
    const uint64_t bytes = size_of(count, dtype);
    require_buffer(from, bytes, "sendBuf");
    require_buffer(to, bytes, "recvBuf");
    submit_operation(communicator, Operation::kAllReduce, stream, {bytes, bytes},
                     [=, c = communicator.get()] { c->all_reduce(cpu(from), cpu(to), count, dtype, reduction); });
  });
}

HcclResult HcclReduce(void* from, void* to, uint64_t count, HcclDataType dtype, HcclReduceOp reduction, uint32_t root,
                      HcclComm handle, aclrtStream stream) {
  return hccl_guarded("HcclReduce", [&] {
    const auto communicator = communicator_for(Operation::kReduce, handle, dtype);
    check_reduction(Operation::kReduce, dtype, reduction);
    require_root(*communicator, root);
    if (count == 0) return;
    const bool receives = communicator->rank() == root;
    const uint64_t bytes = size_of(count, dtype);
    require_buffer(from, bytes, "sendBuf");
    if (receives) require_buffer(to, bytes, "recvBuf");
    submit_operation(communicator, Operation::kReduce, stream, {bytes, receives ? bytes : 0},
                     [=, c = communicator.get()] {
                       c->reduce_to(cpu(from), receives ? cpu(to) : nullptr, count, dtype, reduction, root);
                     });
  });
}

HcclResult HcclReduceScatter(void* from, void* to, uint64_t count, HcclDataType dtype, HcclReduceOp reduction,
                             HcclComm handle, aclrtStream stream) {
  return hccl_guarded("HcclReduceScatter", [&] {
    const auto communicator = communicator_for(Operation::kReduceScatter, handle, dtype);
    check_reduction(Operation::kReduceScatter, dtype, reduction);
    if (count == 0) return;
    const Parts parts = equal_parts(communicator->size(), size_of(count, dtype));
    require_parts(from, parts, "sendBuf");
    require_buffer(to, parts.bytes[0], "recvBuf");
    submit_operation(communicator, Operation::kReduceScatter, stream, {total(parts), parts.bytes[0]},
                     [=, c = communicator.get()] {
                       c->reduce_scatter(Operation::kReduceScatter, cpu(from), parts, cpu(to), dtype, reduction);
                     });
  });
}

HcclResult HcclReduceScatterV(void* from, const void* counts, const void* offsets, void* to, uint64_t count,
                              HcclDataType dtype, HcclReduceOp reduction, HcclComm handle, aclrtStream stream) {
  return hccl_guarded("HcclReduceScatterV", [&] {
    const auto communicator = communicator_for(Operation::kReduceScatterV, handle, dtype);
    check_reduction(Operation::kReduceScatterV, dtype, reduction);
    const Parts parts = given_parts(communicator->size(), counts, offsets, dtype);
    const uint64_t own = parts.bytes[communicator->rank()];
    if (own != size_of(count, dtype)) {
      fail(HCCL_E_PARA, "HcclReduceScatterV: recvCount must be this rank's entry of sendCounts.");
    }
    require_parts(from, parts, "sendBuf");
    require_buffer(to, own, "recvBuf");
    submit_operation(communicator, Operation::kReduceScatterV, stream, {total(parts), own},
                     [=, c = communicator.get()] {
                       c->reduce_scatter(Operation::kReduceScatterV, cpu(from), parts, cpu(to), dtype, reduction);
                     });
  });
}

HcclResult HcclAllGather(void* from, void* to, uint64_t count, HcclDataType dtype, HcclComm handle,
                         aclrtStream stream) {
  return hccl_guarded("HcclAllGather", [&] {
    const auto communicator = communicator_for(Operation::kAllGather, handle, dtype);
    if (count == 0) return;
    const Parts parts = equal_parts(communicator->size(), size_of(count, dtype));
    require_buffer(from, parts.bytes[0], "sendBuf");
    require_parts(to, parts, "recvBuf");
    submit_operation(
        communicator, Operation::kAllGather, stream, {parts.bytes[0], total(parts)},
        [=, c = communicator.get()] { c->all_gather(Operation::kAllGather, cpu(from), cpu(to), parts, dtype); });
  });
}

HcclResult HcclAllGatherV(void* from, uint64_t count, void* to, const void* counts, const void* offsets,
                          HcclDataType dtype, HcclComm handle, aclrtStream stream) {
  return hccl_guarded("HcclAllGatherV", [&] {
    const auto communicator = communicator_for(Operation::kAllGatherV, handle, dtype);
    const Parts parts = given_parts(communicator->size(), counts, offsets, dtype);
    const uint64_t own = parts.bytes[communicator->rank()];
    if (own != size_of(count, dtype)) {
      fail(HCCL_E_PARA, "HcclAllGatherV: sendCount must be this rank's entry of recvCounts.");
    }
    require_buffer(from, own, "sendBuf");
    require_parts(to, parts, "recvBuf");
    submit_operation(communicator, Operation::kAllGatherV, stream, {own, total(parts)}, [=, c = communicator.get()] {
      c->all_gather(Operation::kAllGatherV, cpu(from), cpu(to), parts, dtype);
    });
  });
}

HcclResult HcclBroadcast(void* data, uint64_t count, HcclDataType dtype, uint32_t root, HcclComm handle,
                         aclrtStream stream) {
  return hccl_guarded("HcclBroadcast", [&] {
    const auto communicator = communicator_for(Operation::kBroadcast, handle, dtype);
    require_root(*communicator, root);
    if (count == 0) return;
    const uint64_t bytes = size_of(count, dtype);
    require_buffer(data, bytes, "buf");
    submit_operation(communicator, Operation::kBroadcast, stream, {bytes, bytes},
                     [=, c = communicator.get()] { c->broadcast(cpu(data), bytes, dtype, root); });
  });
}

HcclResult HcclScatter(void* from, void* to, uint64_t count, HcclDataType dtype, uint32_t root, HcclComm handle,
                       aclrtStream stream) {
  return hccl_guarded("HcclScatter", [&] {
    const auto communicator = communicator_for(Operation::kScatter, handle, dtype);
    require_root(*communicator, root);
    if (count == 0) return;
    const bool sends = communicator->rank() == root;
    const uint64_t bytes = size_of(count, dtype);
    const uint64_t sent = sends ? bytes * communicator->size() : 0;
    if (sends) require_buffer(from, sent, "sendBuf");
    require_buffer(to, bytes, "recvBuf");
    submit_operation(communicator, Operation::kScatter, stream, {sent, bytes}, [=, c = communicator.get()] {
      c->scatter(sends ? cpu(from) : nullptr, cpu(to), bytes, dtype, root);
    });
  });
}

HcclResult HcclAlltoAll(const void* from, uint64_t send_count, HcclDataType send_dtype, const void* to,
                        uint64_t receive_count, HcclDataType receive_dtype, HcclComm handle, aclrtStream stream) {
  return hccl_guarded("HcclAlltoAll", [&] {
    const auto communicator = communicator_for(Operation::kAllToAll, handle, send_dtype);
    if (send_dtype != receive_dtype || send_count != receive_count) {
      fail(HCCL_E_PARA, "HcclAlltoAll: what is sent and what is received must agree in count and data type.");
    }
    if (send_count == 0) return;
    const Parts parts = equal_parts(communicator->size(), size_of(send_count, send_dtype));
    require_parts(from, parts, "sendBuf");
    require_parts(to, parts, "recvBuf");
    submit_operation(communicator, Operation::kAllToAll, stream, {total(parts), total(parts)},
                     [=, c = communicator.get()] {
                       c->all_to_all(Operation::kAllToAll, cpu(from), parts, cpu(to), parts, send_dtype);
                     });
  });
}

HcclResult HcclAlltoAllV(const void* from, const void* send_counts, const void* send_offsets, HcclDataType send_dtype,
                         const void* to, const void* receive_counts, const void* receive_offsets,
                         HcclDataType receive_dtype, HcclComm handle, aclrtStream stream) {
  return hccl_guarded("HcclAlltoAllV", [&] {
    const auto communicator = communicator_for(Operation::kAllToAllV, handle, send_dtype);
    if (send_dtype != receive_dtype) fail(HCCL_E_PARA, "HcclAlltoAllV: sendType and recvType differ.");
    const Parts sent = given_parts(communicator->size(), send_counts, send_offsets, send_dtype);
    const Parts received = given_parts(communicator->size(), receive_counts, receive_offsets, send_dtype);
    require_parts(from, sent, "sendBuf");
    require_parts(to, received, "recvBuf");
    submit_operation(communicator, Operation::kAllToAllV, stream, {total(sent), total(received)},
                     [=, c = communicator.get()] {
                       c->all_to_all(Operation::kAllToAllV, cpu(from), sent, cpu(to), received, send_dtype);
                     });
  });
}

HcclResult HcclAlltoAllVC(const void* from, const void* count_matrix, HcclDataType send_dtype, const void* to,
                          HcclDataType receive_dtype, HcclComm handle, aclrtStream stream) {
  return hccl_guarded("HcclAlltoAllVC", [&] {
    const auto communicator = communicator_for(Operation::kAllToAllVC, handle, send_dtype);
    require_pointer(count_matrix, "sendCountMatrix");
    if (send_dtype != receive_dtype) fail(HCCL_E_PARA, "HcclAlltoAllVC: sendType and recvType differ.");
    Parts sent, received;
    matrix_parts(static_cast<const uint64_t*>(count_matrix), communicator->size(), communicator->rank(),
                 send_dtype, &sent, &received);
    require_parts(from, sent, "sendBuf");
    require_parts(to, received, "recvBuf");
    submit_operation(communicator, Operation::kAllToAllVC, stream, {total(sent), total(received)},
                     [=, c = communicator.get()] {
                       c->all_to_all(Operation::kAllToAllVC, cpu(from), sent, cpu(to), received, send_dtype);
                     });
  });
}

HcclResult HcclBarrier(HcclComm handle, aclrtStream stream) {
  return hccl_guarded("HcclBarrier", [&] {
    const auto communicator = find_communicator(handle);
    submit_operation(communicator, Operation::kBarrier, stream, {0, 0}, [c = communicator.get()] { c->barrier(); });
  });
}

}  // extern "C"
