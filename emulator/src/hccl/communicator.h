// One rank's end of a communicator: collectives and messages over a Segment. All methods below `name()` run on stream
// threads and block there; a mutex keeps the collectives of one communicator in the order in which its streams reach
// them, and a message has each direction to a peer to itself.
#pragma once

#include <hccl/hccl_types.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/chips.h"
#include "hccl/segment.h"

namespace emulator::hccl {

enum class Operation : uint32_t {
  kAllReduce = 1,
  kReduce,
  kReduceScatter,
  kReduceScatterV,
  kAllGather,
  kAllGatherV,
  kBroadcast,
  kScatter,
  kAllToAll,
  kAllToAllV,
  kAllToAllVC,
  kBarrier,
  kSend,
  kReceive,
  kBatchSendReceive,
};

const char* name_of(Operation operation);  // "HcclAllReduce"

// Byte ranges of one buffer, one for each rank.
struct Parts {
  std::vector<uint64_t> bytes;
  std::vector<uint64_t> offsets;
};

struct Transfer {
  bool sends = false;
  uint32_t peer = 0;
  char* data = nullptr;  // CPU address
  uint64_t bytes = 0;
};

class Communicator {
 public:
  // `identity` is unique to this communicator; `name` is what users call it.
  Communicator(std::string identity, std::string name, uint32_t rank, std::shared_ptr<Segment> segment,
               int64_t execute_timeout_s);
  ~Communicator();

  const std::string& identity() const { return identity_; }
  const std::string& name() const { return name_; }
  uint32_t rank() const { return rank_; }
  uint32_t size() const { return size_; }
  HcclResult asynchronous_error() const { return asynchronous_error_; }
  void set_asynchronous_error(HcclResult error) { asynchronous_error_ = error; }
  void leave();  // peers that wait for this rank from now on fail

  void all_reduce(const char* from, char* to, uint64_t count, HcclDataType dtype, HcclReduceOp operation);
  void reduce_to(const char* from, char* to, uint64_t count, HcclDataType dtype, HcclReduceOp operation, uint32_t root);
  // Every rank gives parts[r] of `from` to rank r, which keeps their reduction.
  void reduce_scatter(Operation kind, const char* from, const Parts& parts, char* to, HcclDataType dtype,
                      HcclReduceOp operation);
  void all_gather(Operation kind, const char* from, char* to, const Parts& parts, HcclDataType dtype);
  void broadcast(char* data, uint64_t bytes, HcclDataType dtype, uint32_t root);
  void scatter(const char* from, char* to, uint64_t bytes, HcclDataType dtype, uint32_t root);
  void all_to_all(Operation kind, const char* from, const Parts& sent, char* to, const Parts& received,
                  HcclDataType dtype);
  void barrier();
  void transfer(Operation kind, const std::vector<Transfer>& transfers);

  // A collective without data, for a clock that does not compute: the ranks meet and agree on the time.
  void meet(Operation kind);

  // The slowest link between two ranks: that of the card if all are on one, else that of the machine.
  const Link& link() const;

 private:
  class Messenger;

  // Counts that this rank alone knows: what it gives the others, and expects of them.
  struct Counts {
    const Parts& given;
    const Parts& expected;
  };

  Limit limit(Operation operation) const;
  void announce(const Announcement& announcement, uint64_t round);
  void check_announcements(const Announcement& own, uint64_t round);
  void check_counts(Operation operation, const Counts& own, uint64_t round);
  [[noreturn]] void fail_all(int32_t code, const std::string& why) { segment_->fail_all(rank_, code, why); }
  void align_time(uint64_t round);
  // Runs rounds 0 .. rounds - 1: write(slot, round) fills this rank's slot, read(round) uses everybody's.
  template <typename Write, typename Read>
  void exchange(Announcement announcement, Write&& write, Read&& read, const Counts* counts = nullptr);
  char* slot(uint32_t rank) { return segment_->slot(rank, round_); }

  const std::string identity_;
  const std::string name_;
  const uint32_t rank_;
  const uint32_t size_;
  const std::shared_ptr<Segment> segment_;
  const int64_t execute_timeout_s_;
  std::atomic<HcclResult> asynchronous_error_{HCCL_SUCCESS};
  std::mutex collective_mutex_;
  uint64_t round_ = 0;
  std::vector<uint64_t> messages_sent_, messages_received_;  // by peer; a Lease allows one stream at a time
  // Directions to peers that a stream is using: 2 * peer to send, and one more to receive.
  class Lease;
  std::mutex lease_mutex_;
  std::condition_variable lease_ended_;
  std::vector<bool> leased_;
};

}  // namespace emulator::hccl
