#include "hccl/rendezvous.h"

#include <acl/acl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <set>
#include <thread>

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

struct Message {
  uint32_t rank = 0;
  iovec part{&rank, sizeof rank};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header{};

  Message() {
    header.msg_iov = &part;
    header.msg_iovlen = 1;
  }
};

void send_file(int socket, int file) {
  Message message;
  message.header.msg_control = message.control;
  message.header.msg_controllen = sizeof message.control;
  cmsghdr* attachment = CMSG_FIRSTHDR(&message.header);
  attachment->cmsg_level = SOL_SOCKET;
  attachment->cmsg_type = SCM_RIGHTS;
  attachment->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(attachment), &file, sizeof file);
  if (sendmsg(socket, &message.header, MSG_NOSIGNAL) < 0) {
    fail(ACL_ERROR_INTERNAL_ERROR, "a rank hung up while joining the communicator: %s", strerror(errno));
  }
}

int milliseconds_left(const Deadline& deadline) {
  using std::chrono::milliseconds;
  const auto left = std::chrono::duration_cast<milliseconds>(deadline.at - Deadline::Clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, 1000));
}

[[noreturn]] void time_out(const Deadline& deadline, const std::string& missing) {
  fail(ACL_ERROR_RT_WAIT_TIMEOUT, "EI0006: %s: %s did not show up within %s", deadline.what.c_str(), missing.c_str(),
       deadline.setting.c_str());
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

void Listener::hand_out(int file, uint32_t ranks, const Deadline& deadline) {
  std::set<uint32_t> joined;
  while (joined.size() + 1 < ranks) {
    pollfd wait{socket_, POLLIN, 0};
    if (poll(&wait, 1, milliseconds_left(deadline)) <= 0) {
      if (Deadline::Clock::now() >= deadline.at) {
        time_out(deadline, std::to_string(ranks - 1 - joined.size()) + " of " + std::to_string(ranks) + " ranks");
      }
      continue;
    }
    const Socket caller(accept4(socket_, nullptr, nullptr, SOCK_CLOEXEC));
    Message message;
    if (recvmsg(caller.get(), &message.header, 0) != sizeof message.rank)
      continue;  // killed between connecting and speaking
    if (!joined.insert(message.rank).second) {
      fail(ACL_ERROR_INVALID_PARAM, "rank %u joined the communicator twice", message.rank);
    }
    send_file(caller.get(), file);
  }
}

int receive_file(const Leader& leader, uint32_t rank, const Deadline& deadline) {
  const Address address(leader.name);
  for (;; std::this_thread::sleep_for(kRetryInterval)) {
    if (leader.pid != 0 && !process_is_alive(leader.pid, leader.start_ticks)) {
      fail(ACL_ERROR_RT_SUSPECT_REMOTE_ERROR,
           "%s: the leading process %d does not run on this machine (the emulator connects ranks of one machine only)",
           deadline.what.c_str(), leader.pid);
    }
    if (Deadline::Clock::now() >= deadline.at) {
      time_out(deadline, "the leading rank (listening as " + leader.name + " on this machine)");
    }
    const Socket line(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    if (connect(line.get(), address.get(), address.length) != 0) continue;
    Message question;
    question.rank = rank;
    if (sendmsg(line.get(), &question.header, MSG_NOSIGNAL) < 0) continue;
    pollfd wait{line.get(), POLLIN, 0};
    while (poll(&wait, 1, milliseconds_left(deadline)) == 0 && Deadline::Clock::now() < deadline.at) {
    }
    Message answer;
    answer.header.msg_control = answer.control;
    answer.header.msg_controllen = sizeof answer.control;
    if (recvmsg(line.get(), &answer.header, MSG_CMSG_CLOEXEC) <= 0) {
      fail(ACL_ERROR_RT_SUSPECT_REMOTE_ERROR, "%s: the leading rank gave up", deadline.what.c_str());
    }
    const cmsghdr* attachment = CMSG_FIRSTHDR(&answer.header);
    if (attachment == nullptr)
      fail(ACL_ERROR_INTERNAL_ERROR, "%s: the leading rank sent no memory", deadline.what.c_str());
    int file = -1;
    std::memcpy(&file, CMSG_DATA(attachment), sizeof file);
    return file;
  }
}

}  // namespace emulator::hccl
