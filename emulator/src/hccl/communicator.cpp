#include "hccl/communicator.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "core/clock.h"
#include "core/errors.h"
#include "hccl/reduction.h"

namespace emulator::hccl {
namespace {

// Above this, each rank reduces its share and the others copy the result: less arithmetic for one more barrier.
constexpr uint64_t kSharedReductionBytes = 64 << 10;

uint64_t pieces(uint64_t bytes, uint64_t piece) { return (bytes + piece - 1) / piece; }

uint64_t piece_at(uint64_t bytes, uint64_t piece, uint64_t index) {
  return index * piece >= bytes ? 0 : std::min(piece, bytes - index * piece);
}

Parts same_for_all(uint32_t ranks, uint64_t bytes) {
  return {.bytes = std::vector<uint64_t>(ranks, bytes), .offsets = {}};
}

}  // namespace

const char* name_of(Operation operation) {
  switch (operation) {
    case Operation::kAllReduce: return "HcclAllReduce";
    case Operation::kReduce: return "HcclReduce";
    case Operation::kReduceScatter: return "HcclReduceScatter";
    case Operation::kReduceScatterV: return "HcclReduceScatterV";
    case Operation::kAllGather: return "HcclAllGather";
    case Operation::kAllGatherV: return "HcclAllGatherV";
    case Operation::kBroadcast: return "HcclBroadcast";
    case Operation::kScatter: return "HcclScatter";
    case Operation::kAllToAll: return "HcclAlltoAll";
    case Operation::kAllToAllV: return "HcclAlltoAllV";
    case Operation::kAllToAllVC: return "HcclAlltoAllVC";
    case Operation::kBarrier: return "HcclBarrier";
    case Operation::kSend: return "HcclSend";
    case Operation::kReceive: return "HcclRecv";
    case Operation::kBatchSendReceive: return "HcclBatchSendRecv";
  }
  return "unknown operation";
}

Communicator::Communicator(std::string identity, std::string name, uint32_t rank, std::shared_ptr<Segment> segment,
                           int64_t execute_timeout_s)
    : identity_(std::move(identity)),
      name_(std::move(name)),
      rank_(rank),
      size_(segment->ranks()),
      segment_(std::move(segment)),
      execute_timeout_s_(execute_timeout_s),
      messages_sent_(size_),
      messages_received_(size_),
      leased_(2 * size_) {}

Communicator::~Communicator() { leave(); }

void Communicator::leave() { segment_->leave(rank_); }

Limit Communicator::limit(Operation operation) const {
  return Limit::after(execute_timeout_s_, name_of(operation), "HCCL_EXEC_TIMEOUT");
}

void Communicator::announce(const Announcement& announcement, uint64_t round) {
  segment_->member(rank_).announcements[round % 2] = announcement;
}

void Communicator::check_announcements(const Announcement& own, uint64_t round) {
  for (uint32_t peer = 0; peer < size_; ++peer) {
    const Announcement& other = segment_->member(peer).announcements[round % 2];
    if (other.operation == own.operation && other.dtype == own.dtype && other.reduction == own.reduction &&
        other.root == own.root && other.count == own.count) {
      continue;
    }
    char text[400];
    snprintf(
        text, sizeof text,
        "ranks of communicator %s disagree: rank %u calls %s (dtype %u, op %u, root %u, count %llu), rank %u calls %s "
        "(dtype %u, op %u, root %u, count %llu)",
        name_.c_str(), rank_, name_of(static_cast<Operation>(own.operation)), own.dtype, own.reduction, own.root,
        (unsigned long long)own.count, peer, name_of(static_cast<Operation>(other.operation)), other.dtype,
        other.reduction, other.root, (unsigned long long)other.count);
    fail_all(kAicpuException, text);
  }
}

// Operations whose counts differ by rank: garbage would be exchanged, or memory read that is not there. Both ranks that
// disagree find it, so that neither takes the operation for done.
void Communicator::check_counts(Operation operation, const Counts& own, uint64_t round) {
  const auto compare = [&](uint32_t from, uint32_t to, uint64_t given, uint64_t expected) {
    if (given == expected) return;
    fail_all(kAicpuException, "ranks of communicator " + name_ + " disagree in " + name_of(operation) + ": rank " +
                                  std::to_string(from) + " gives " + std::to_string(given) + " bytes for rank " +
                                  std::to_string(to) + ", which expects " + std::to_string(expected));
  };
  for (uint32_t peer = 0; peer < size_; ++peer) {
    const Member& other = segment_->member(peer);
    compare(peer, rank_, other.given[round % 2][rank_], own.expected.bytes[peer]);
    compare(rank_, peer, own.given.bytes[peer], other.expected[round % 2][rank_]);
  }
}

// A collective begins when the last rank has come to it.
void Communicator::align_time(uint64_t round) {
  if (!Clock::models_time()) return;
  for (uint32_t peer = 0; peer < size_; ++peer) {
    Clock::timeline().reach(segment_->member(peer).announcements[round % 2].arrival_ns);
  }
}

template <typename Write, typename Read>
void Communicator::exchange(Announcement announcement, Write&& write, Read&& read, const Counts* counts) {
  std::lock_guard lock(collective_mutex_);
  const auto operation = static_cast<Operation>(announcement.operation);
  uint64_t rounds = announcement.rounds;
  if (Clock::models_time()) announcement.arrival_ns = Clock::timeline().end_ns();
  for (uint64_t index = 0; index == 0 || index < rounds; ++index) {
    // Slots alternate: whoever writes this one has seen everybody arrive at the previous round, hence finish with it.
    if (index == 0) announce(announcement, round_);
    if (index == 0 && counts != nullptr) {
      Member& self = segment_->member(rank_);
      std::copy(counts->given.bytes.begin(), counts->given.bytes.end(), self.given[round_ % 2]);
      std::copy(counts->expected.bytes.begin(), counts->expected.bytes.end(), self.expected[round_ % 2]);
    }
    if (index < announcement.rounds) write(slot(rank_), index);
    segment_->barrier(rank_, limit(operation));
    if (index == 0) {
      check_announcements(announcement, round_);
      if (counts != nullptr) check_counts(operation, *counts, round_);
      align_time(round_);
      for (uint32_t peer = 0; peer < size_; ++peer) {
        rounds = std::max(rounds, segment_->member(peer).announcements[round_ % 2].rounds);
      }
    }
    read(index);
    ++round_;
  }
}

void Communicator::all_reduce(const char* from, char* to, uint64_t count, HcclDataType dtype, HcclReduceOp operation) {
  const uint64_t unit = element_bytes(dtype), bytes = count * unit;
  const bool shared = size_ > 2 && bytes > kSharedReductionBytes;
  const Announcement announcement{uint32_t(Operation::kAllReduce), dtype, operation, 0, count,
                                  pieces(bytes, kSlotBytes)};
  const auto write = [&](char* slot, uint64_t index) {
    std::memcpy(slot, from + index * kSlotBytes, piece_at(bytes, kSlotBytes, index));
  };
  exchange(announcement, write, [&](uint64_t index) {
    const uint64_t length = piece_at(bytes, kSlotBytes, index) / unit;
    char* target = to + index * kSlotBytes;
    std::vector<const char*> sources(size_);
    if (!shared) {
      for (uint32_t peer = 0; peer < size_; ++peer) sources[peer] = slot(peer);
      return reduce(operation, dtype, sources.data(), size_, target, length);
    }
    // Nobody else reads this rank's share of this rank's slot, so the sum may replace it.
    const uint64_t share = (length + size_ - 1) / size_;
    const auto begin_of = [&](uint32_t peer) { return std::min(length, peer * share); };
    const uint64_t begin = begin_of(rank_), end = begin_of(rank_ + 1);
    for (uint32_t peer = 0; peer < size_; ++peer) sources[peer] = slot(peer) + begin * unit;
    reduce(operation, dtype, sources.data(), size_, slot(rank_) + begin * unit, end - begin);
    segment_->barrier(rank_, limit(Operation::kAllReduce));
    for (uint32_t peer = 0; peer < size_; ++peer) {
      const uint64_t first = begin_of(peer) * unit, last = begin_of(peer + 1) * unit;
      std::memcpy(target + first, slot(peer) + first, last - first);
    }
  });
}

void Communicator::reduce_to(const char* from, char* to, uint64_t count, HcclDataType dtype, HcclReduceOp operation,
                             uint32_t root) {
  const uint64_t unit = element_bytes(dtype), bytes = count * unit;
  const Announcement announcement{uint32_t(Operation::kReduce), dtype, operation, root, count,
                                  pieces(bytes, kSlotBytes)};
  const auto write = [&](char* slot, uint64_t index) {
    std::memcpy(slot, from + index * kSlotBytes, piece_at(bytes, kSlotBytes, index));
  };
  exchange(announcement, write, [&](uint64_t index) {
    if (rank_ != root) return;
    std::vector<const char*> sources(size_);
    for (uint32_t peer = 0; peer < size_; ++peer) sources[peer] = slot(peer);
    reduce(operation, dtype, sources.data(), size_, to + index * kSlotBytes, piece_at(bytes, kSlotBytes, index) / unit);
  });
}

void Communicator::reduce_scatter(Operation kind, const char* from, const Parts& parts, char* to, HcclDataType dtype,
                                  HcclReduceOp operation) {
  const uint64_t unit = element_bytes(dtype), piece = kSlotBytes / size_ / 8 * 8;
  const uint64_t longest = *std::max_element(parts.bytes.begin(), parts.bytes.end());
  const bool variable = kind == Operation::kReduceScatterV;
  const Parts own = same_for_all(size_, parts.bytes[rank_]);
  const Counts counts{.given = parts, .expected = own};
  const Announcement announcement{uint32_t(kind), dtype, operation, 0, variable ? 0 : longest, pieces(longest, piece)};
  const auto write = [&](char* slot, uint64_t index) {
    for (uint32_t peer = 0; peer < size_; ++peer) {
      std::memcpy(slot + peer * piece, from + parts.offsets[peer] + index * piece,
                  piece_at(parts.bytes[peer], piece, index));
    }
  };
  exchange(announcement, write, [&](uint64_t index) {
    std::vector<const char*> sources(size_);
    for (uint32_t peer = 0; peer < size_; ++peer) sources[peer] = slot(peer) + rank_ * piece;
    const uint64_t length = piece_at(parts.bytes[rank_], piece, index) / unit;
    reduce(operation, dtype, sources.data(), size_, to + index * piece, length);
  }, variable ? &counts : nullptr);
}

void Communicator::all_gather(Operation kind, const char* from, char* to, const Parts& parts, HcclDataType dtype) {
  const uint64_t longest = *std::max_element(parts.bytes.begin(), parts.bytes.end());
  const bool variable = kind == Operation::kAllGatherV;
  const Parts own = same_for_all(size_, parts.bytes[rank_]);
  const Counts counts{.given = own, .expected = parts};
  const Announcement announcement{uint32_t(kind), dtype, 0, 0, variable ? 0 : longest, pieces(longest, kSlotBytes)};
  const auto write = [&](char* slot, uint64_t index) {
    std::memcpy(slot, from + index * kSlotBytes, piece_at(parts.bytes[rank_], kSlotBytes, index));
  };
  exchange(announcement, write, [&](uint64_t index) {
    for (uint32_t peer = 0; peer < size_; ++peer) {
      std::memcpy(to + parts.offsets[peer] + index * kSlotBytes, slot(peer),
                  piece_at(parts.bytes[peer], kSlotBytes, index));
    }
  }, variable ? &counts : nullptr);
}

void Communicator::broadcast(char* data, uint64_t bytes, HcclDataType dtype, uint32_t root) {
  const Announcement announcement{uint32_t(Operation::kBroadcast), dtype, 0, root, bytes, pieces(bytes, kSlotBytes)};
  const auto write = [&](char* slot, uint64_t index) {
    if (rank_ == root) std::memcpy(slot, data + index * kSlotBytes, piece_at(bytes, kSlotBytes, index));
  };
  exchange(announcement, write, [&](uint64_t index) {
    if (rank_ != root) std::memcpy(data + index * kSlotBytes, slot(root), piece_at(bytes, kSlotBytes, index));
  });
}

void Communicator::scatter(const char* from, char* to, uint64_t bytes, HcclDataType dtype, uint32_t root) {
  const uint64_t piece = kSlotBytes / size_;
  const Announcement announcement{uint32_t(Operation::kScatter), dtype, 0, root, bytes, pieces(bytes, piece)};
  const auto write = [&](char* slot, uint64_t index) {
    for (uint32_t peer = 0; rank_ == root && peer < size_; ++peer) {
      std::memcpy(slot + peer * piece, from + peer * bytes + index * piece, piece_at(bytes, piece, index));
    }
  };
  exchange(announcement, write, [&](uint64_t index) {
    std::memcpy(to + index * piece, slot(root) + rank_ * piece, piece_at(bytes, piece, index));
  });
}

void Communicator::all_to_all(Operation kind, const char* from, const Parts& sent, char* to, const Parts& received,
                              HcclDataType dtype) {
  const uint64_t piece = kSlotBytes / size_;
  const uint64_t longest = *std::max_element(sent.bytes.begin(), sent.bytes.end());
  // In AlltoAllV a rank knows its own counts only: what one sends, the other must expect.
  const Counts counts{.given = sent, .expected = received};
  const uint64_t count = kind == Operation::kAllToAll ? longest : 0;
  const Announcement announcement{uint32_t(kind), dtype, 0, 0, count, pieces(longest, piece)};
  const auto write = [&](char* slot, uint64_t index) {
    for (uint32_t peer = 0; peer < size_; ++peer) {
      std::memcpy(slot + peer * piece, from + sent.offsets[peer] + index * piece,
                  piece_at(sent.bytes[peer], piece, index));
    }
  };
  exchange(announcement, write, [&](uint64_t index) {
    for (uint32_t peer = 0; peer < size_; ++peer) {
      std::memcpy(to + received.offsets[peer] + index * piece, slot(peer) + rank_ * piece,
                  piece_at(received.bytes[peer], piece, index));
    }
  }, kind == Operation::kAllToAll ? nullptr : &counts);
}

void Communicator::barrier() { meet(Operation::kBarrier); }

void Communicator::meet(Operation kind) {
  exchange({uint32_t(kind), 0, 0, 0, 0, 0}, [](char*, uint64_t) {}, [](uint64_t) {});
}

const Link& Communicator::link() const {
  const int per_card = chip().chips_per_card;
  const int card = segment_->member(0).chip / per_card;
  for (uint32_t peer = 1; peer < size_; ++peer) {
    if (segment_->member(peer).chip / per_card != card) return chip().node_link;
  }
  return chip().card_link;
}

}  // namespace emulator::hccl
