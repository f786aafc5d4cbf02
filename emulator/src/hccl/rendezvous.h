// How ranks find each other: the leader hands out the communicator's shared memory over an abstract Unix socket, whose
// name the others know from the root info, the rank table or the parent communicator.
#pragma once

#include <memory>
#include <string>

#include "hccl/segment.h"

namespace emulator::hccl {

// A listening socket. It lives in the leader from the moment its name is published.
class Listener {
 public:
  explicit Listener(const std::string& name);  // throws Failure if another process listens under this name
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  // Gives `file` to the other ranks. One that expects another number of ranks is told, and Failure thrown here too.
  void hand_out(int file, uint32_t rank, uint32_t ranks, const Limit& limit);

 private:
  int socket_ = -1;
};

// The process that leads, if it is known before it listens.
struct Leader {
  std::string name;
  int32_t pid = 0;  // 0: unknown
  uint64_t start_ticks = 0;
};

// The leader's file; waits for the leader to listen. The caller closes it.
int receive_file(const Leader& leader, uint32_t rank, uint32_t ranks, const Limit& limit);

}  // namespace emulator::hccl
