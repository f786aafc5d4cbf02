// The memory that the ranks of a communicator share: an anonymous file (memfd) that every rank maps. It never has a
// name in the file system, so that a killed rank leaves nothing behind.
//
// Waiting is by futex on words in this memory, after a short spin when there is a core for every rank. A waiter looks
// every 100 ms whether its peers still live, which a killed process cannot tell, and whether its own stream must give
// up.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "core/deadline.h"

namespace emulator::hccl {

inline constexpr uint32_t kMaxRanks = 64;
inline constexpr size_t kFailureBytes = 480;
inline constexpr size_t kSlotBytes = 1 << 20;       // of one rank's data in one round of a collective
inline constexpr size_t kChannelBytes = 256 << 10;  // of one piece of a point-to-point message

// What a rank is about to do, so that ranks that do different things notice instead of exchanging garbage.
struct Announcement {
  uint32_t operation = 0;
  uint32_t dtype = 0;
  uint32_t reduction = 0;
  uint32_t root = 0;
  uint64_t count = 0;
  uint64_t rounds = 0;  // barrier-separated rounds that this rank's data need
  int64_t arrival_ns = 0;  // modelled time at which the rank's stream came here (core/clock.h)
};

struct alignas(128) Member {
  std::atomic<int32_t> pid;
  std::atomic<uint64_t> start_ticks;  // with the pid, identifies a process for ever
  std::atomic<int32_t> chip;          // of the machine
  std::atomic<uint32_t> left;         // destroyed its communicator
  std::atomic<uint64_t> barriers;     // that it has arrived at
  std::atomic<uint32_t> doorbell;     // futex: rung when a channel of this rank has changed
  std::atomic<uint32_t> waiting;      // threads of this rank asleep on its doorbell
  Announcement announcements[2];
  // Beside an announcement whose operation has counts by rank: bytes that this rank gives each, and expects of each.
  uint64_t given[2][kMaxRanks];
  uint64_t expected[2][kMaxRanks];
  int32_t failure_code;               // what this rank found wrong; complete before it is named in Header::failed_rank
  char failure[kFailureBytes];
};

// From one rank to another. Two pieces may be under way; `data` follows in memory.
struct alignas(128) Channel {
  std::atomic<uint64_t> posted;    // messages that the receiver was ready for
  std::atomic<uint64_t> offered;   // messages that the sender has announced
  std::atomic<uint64_t> bytes;     // size of the announced message
  std::atomic<uint64_t> sent;      // pieces
  std::atomic<uint64_t> received;  // pieces
};

struct Header {
  std::atomic<uint32_t> attached;
  std::atomic<uint64_t> arrivals;  // at barriers, of all ranks together
  std::atomic<uint32_t> released;  // futex: barriers that are complete
  std::atomic<uint32_t> waiting;   // ranks asleep on it
  std::atomic<uint32_t> failed_rank;  // 1 + the rank whose `failure` says why this communicator is dead; 0: it is not
};

// By when a wait has to end, and what to say if it does not.
struct Limit {
  Deadline end = Deadline::never();
  std::string what;     // "HcclAllReduce"
  std::string setting;  // "HCCL_EXEC_TIMEOUT=68 s"

  static Limit after(int64_t seconds, std::string what, const char* variable);  // 0: never
};

class Segment {
 public:
  // The file of a new communicator; the caller closes it.
  static int create_file(uint32_t ranks);

  Segment(int file, uint32_t ranks);
  ~Segment();
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;

  uint32_t ranks() const { return ranks_; }
  Header& header() { return *header_; }
  Member& member(uint32_t rank) { return members_[rank]; }
  Channel& channel(uint32_t from, uint32_t to) { return channels_[from * ranks_ + to]; }
  char* channel_data(uint32_t from, uint32_t to, uint64_t piece);
  char* slot(uint32_t rank, uint64_t round);

  void attach(uint32_t rank, int chip);  // records the calling process as this rank, on this chip of the machine
  void wait_until_all_attached(uint32_t rank, const Limit& limit);
  void leave(uint32_t rank);

  // Returns when every rank has arrived as often as this one; throws Failure if that cannot happen any more.
  void barrier(uint32_t rank, const Limit& limit);

  // Sleeps until ready() or until the channels of `rank` change again. `peers(r)` tells whether it waits for rank r.
  void wait_for_channels(uint32_t rank, const Limit& limit, const std::function<bool()>& ready,
                         const std::function<bool(uint32_t)>& peers);
  void ring(uint32_t rank);

  // Declares the communicator dead for every rank; the first description wins. Throws it as a Failure. `rank` is the
  // caller's.
  [[noreturn]] void fail_all(uint32_t rank, int32_t code, const std::string& why);
  void throw_if_failed();

 private:
  using Blame = std::function<bool(uint32_t)>;
  using Clock = Deadline::Clock;
  void declare_failed(uint32_t rank, int32_t code, const std::string& why);
  // `next_look`: when to look next whether the peers live, however often the word changes until then.
  void sleep_on(std::atomic<uint32_t>& word, uint32_t seen, uint32_t rank, const Limit& limit,
                const Blame& blame, Clock::time_point& next_look);
  void check_peers(uint32_t rank, const Limit& limit, const Blame& blame);

  uint32_t ranks_ = 0;
  size_t size_ = 0;
  char* memory_ = nullptr;
  Header* header_ = nullptr;
  Member* members_ = nullptr;
  Channel* channels_ = nullptr;
  char* channel_data_ = nullptr;
  char* slots_ = nullptr;
  int spins_ = 0;
};

}  // namespace emulator::hccl
