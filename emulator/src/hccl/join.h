// Bringing the ranks of a new communicator together.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "hccl/rendezvous.h"

namespace emulator::hccl {

// What HcclGetRootInfo fills in and every rank passes on.
struct RootInfo {
  char magic[16];
  char name[96];
  int32_t pid;
  uint64_t start_ticks;
};

// Makes this process the leader of a communicator that does not exist yet.
RootInfo create_root();
const RootInfo& checked_root(const void* bytes);  // throws Failure if HcclGetRootInfo of this emulator did not write it

// Maps the shared memory of a communicator and waits until all ranks have done so.
std::shared_ptr<Segment> join_root(const RootInfo& root, uint32_t rank, uint32_t ranks);
std::shared_ptr<Segment> join_named(const std::string& name, bool leads, uint32_t rank, uint32_t ranks);
// All ranks at once, by one thread.
std::shared_ptr<Segment> join_alone(uint32_t ranks, const int32_t* devices);

// The number of ranks in a rank table (JSON); throws Failure for a table that is incomplete or lacks `rank`.
uint32_t count_ranks(const std::string& rank_table_path, uint32_t rank);
std::string rank_table_name(const std::string& rank_table_path);  // the same for equal tables of one user

}  // namespace emulator::hccl
