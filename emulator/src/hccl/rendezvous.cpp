#include "hccl/rendezvous.h"

#include <acl/acl.h>
#include <hccl/hccl_types.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <list>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "core/errors.h"
#include "hccl/process.h"

namespace emulator::hccl {
namespace {

constexpr auto kRetryInterval = std::chrono::milliseconds(20);

struct Address {
  sockaddr_un address{};
  socklen_t length = 0;

  // A leading zero byte makes the name abstract: it vanishes with the socket.
  explicit Address(const std::string& name) {
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path + 1, name.data(), std::min(name.size(), sizeof address.sun_path - 1));
    length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 +
                                    std::min(name.size(), sizeof address.sun_path - 1));
  }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address); }
};

class Socket {
 public:
  explicit Socket(int descriptor) : descriptor_(descriptor) {
    if (descriptor < 0) fail(ACL_ERROR_INTERNAL_ERROR, "no socket: %s", strerror(errno));
  }
  ~Socket() { close(descriptor_); }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

// What a rank says when it calls, and what the leader answers: its file with an empty complaint, or why there is none.
struct Call {
  uint32_t rank = 0;
  uint32_t ranks = 0;
};
struct Answer {
  char complaint[240] = {};
};

// A message of one part, with room for a file.
template <typename Body>
struct Message {
  Body body{};
  iovec part{&body, sizeof body};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header{};

  Message() {
    header.msg_iov = &part;
    header.msg_iovlen = 1;
  }
  void make_room_for_file() {
    header.msg_control = control;
    header.msg_controllen = sizeof control;
  }
};

void send_file(int socket, int file) {
  Message<Answer> message;
  message.make_room_for_file();
  cmsghdr* attachment = CMSG_FIRSTHDR(&message.header);
  attachment->cmsg_level = SOL_SOCKET;
  attachment->cmsg_type = SCM_RIGHTS;
  attachment->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(attachment), &file, sizeof file);
  if (sendmsg(socket, &message.header, MSG_NOSIGNAL) < 0) {
    fail(ACL_ERROR_INTERNAL_ERROR, "a rank hung up while joining the communicator: %s", strerror(errno));
  }
}

// Tells the caller why it gets no file, and throws the same here.
[[noreturn]] void refuse(int socket, const std::string& complaint) {
  Message<Answer> message;
  std::snprintf(message.body.complaint, sizeof message.body.complaint, "%s", complaint.c_str());
  sendmsg(socket, &message.header, MSG_NOSIGNAL);
  fail(HCCL_E_PARA, "EI0003: %s", complaint.c_str());
}

// Abstract names have no permissions: another user of the machine may have taken one, or may call.
bool is_of_this_user(int socket) {
  ucred peer{};
  socklen_t length = sizeof peer;
  return getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && peer.uid == getuid();
}

int milliseconds_left(const Limit& limit) {
  using std::chrono::milliseconds;
  const auto left = std::chrono::duration_cast<milliseconds>(limit.end.time() - Deadline::Clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, 1000));
}

[[noreturn]] void time_out(const Limit& limit, const std::string& missing) {
  fail(ACL_ERROR_RT_WAIT_TIMEOUT, "EI0006: %s: %s did not show up within %s", limit.what.c_str(), missing.c_str(),
       limit.setting.c_str());
}

}  // namespace

Listener::Listener(const std::string& name) {
  const Address address(name);
  socket_ = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (socket_ < 0 || bind(socket_, address.get(), address.length) != 0 || listen(socket_, kMaxRanks) != 0) {
    const int error = errno;
    if (socket_ >= 0) close(socket_);
    fail(ACL_ERROR_INTERNAL_ERROR, "cannot listen for the other ranks as %s: %s", name.c_str(), strerror(error));
  }
}

Listener::~Listener() { close(socket_); }

void Listener::hand_out(int file, uint32_t rank, uint32_t ranks, const Limit& limit) {
  std::set<uint32_t> joined{rank};
  std::list<Socket> callers;  // who have connected and not spoken: they must not hold back the others
  const auto answer = [&](const Socket& caller) {
    Message<Call> message;
    // Nothing comes from one that was killed between connecting and speaking.
    if (recvmsg(caller.get(), &message.header, 0) != sizeof(Call)) return;
    const Call& call = message.body;
    if (call.ranks != ranks) {
      refuse(caller.get(), "rank " + std::to_string(call.rank) + " joins a communicator of " +
                               std::to_string(call.ranks) + " ranks, rank " + std::to_string(rank) + " one of " +
                               std::to_string(ranks) + ". Give every rank the same number.");
    }
    if (call.rank >= ranks || !joined.insert(call.rank).second) {
      refuse(caller.get(), "rank " + std::to_string(call.rank) + " joined the communicator twice.");
    }
    send_file(caller.get(), file);
  };
  while (joined.size() < ranks) {
    std::vector<pollfd> waits{{socket_, POLLIN, 0}};
    for (const Socket& caller : callers) waits.push_back({caller.get(), POLLIN, 0});
    if (poll(waits.data(), waits.size(), milliseconds_left(limit)) <= 0) {
      if (limit.end.passed()) {
        time_out(limit, std::to_string(ranks - joined.size()) + " of " + std::to_string(ranks) + " ranks");
      }
      continue;
    }
    auto caller = callers.begin();
    for (size_t i = 1; i < waits.size(); ++i) {
      if (waits[i].revents == 0) {
        ++caller;
        continue;
      }
      answer(*caller);
      caller = callers.erase(caller);
    }
    if (waits[0].revents == 0) continue;
    const int accepted = accept4(socket_, nullptr, nullptr, SOCK_CLOEXEC);
    if (accepted < 0) continue;
    callers.emplace_back(accepted);
    if (!is_of_this_user(accepted)) callers.pop_back();
  }
}

namespace {

[[noreturn]] void gave_up(const Limit& limit) {
  fail(ACL_ERROR_RT_SUSPECT_REMOTE_ERROR, "%s: the leading rank gave up", limit.what.c_str());
}

int file_of_answer(const Socket& line, const Limit& limit) {
  pollfd wait{line.get(), POLLIN, 0};
  while (poll(&wait, 1, milliseconds_left(limit)) == 0) {
    if (limit.end.passed()) time_out(limit, "the answer of the leading rank");
  }
  Message<Answer> answer;
  answer.make_room_for_file();
  if (recvmsg(line.get(), &answer.header, MSG_CMSG_CLOEXEC) <= 0) gave_up(limit);
  answer.body.complaint[sizeof answer.body.complaint - 1] = '\0';
  if (answer.body.complaint[0] != '\0') fail(HCCL_E_PARA, "EI0003: %s", answer.body.complaint);
  const cmsghdr* attachment = CMSG_FIRSTHDR(&answer.header);
  if (attachment == nullptr) {
    fail(ACL_ERROR_INTERNAL_ERROR, "%s: the leading rank sent no memory", limit.what.c_str());
  }
  int file = -1;
  std::memcpy(&file, CMSG_DATA(attachment), sizeof file);
  return file;
}

}  // namespace

int receive_file(const Leader& leader, uint32_t rank, uint32_t ranks, const Limit& limit) {
  const Address address(leader.name);
  for (;; std::this_thread::sleep_for(kRetryInterval)) {
    if (leader.pid != 0 && !process_is_alive(leader.pid, leader.start_ticks)) {
      fail(ACL_ERROR_RT_SUSPECT_REMOTE_ERROR,
           "%s: the leading process %d does not run on this machine (the emulator connects ranks of one machine only)",
           limit.what.c_str(), leader.pid);
    }
    if (limit.end.passed()) {
      time_out(limit, "the leading rank (listening as " + leader.name + " on this machine)");
    }
    const Socket line(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    if (connect(line.get(), address.get(), address.length) != 0) {
      // A root listens before it is known: that it does not any more is an answer.
      if (leader.pid != 0 && errno == ECONNREFUSED) {
        fail(ACL_ERROR_RT_SUSPECT_REMOTE_ERROR,
             "%s: the leading rank does not wait for rank %u of %u: it gave up, or has all the ranks it expects",
             limit.what.c_str(), rank, ranks);
      }
      continue;
    }
    if (!is_of_this_user(line.get())) {
      fail(ACL_ERROR_RT_SUSPECT_REMOTE_ERROR, "%s: another user of this machine listens as %s", limit.what.c_str(),
           leader.name.c_str());
    }
    Message<Call> question;
    question.body = {rank, ranks};
    if (sendmsg(line.get(), &question.header, MSG_NOSIGNAL) < 0) continue;
    return file_of_answer(line, limit);
  }
}

}  // namespace emulator::hccl
