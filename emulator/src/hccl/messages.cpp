// Point-to-point messages of a communicator: a sender waits until the receiver is ready, as on the device, so that two
// ranks that both send first hang here too; a batch makes progress in all its messages at once.
#include <algorithm>
#include <cstring>
#include <set>

#include "core/errors.h"
#include "core/task.h"
#include "hccl/communicator.h"

namespace emulator::hccl {

// The progress of a set of messages, in order for each direction and peer.
class Communicator::Messenger {
 public:
  Messenger(Communicator& owner, Operation kind, const std::vector<Transfer>& transfers) : owner_(owner), kind_(kind) {
    for (const Transfer& transfer : transfers) messages_.push_back({transfer});
  }

  void run() {
    const Limit limit = owner_.limit(kind_);
    while (!finished()) {
      if (advance_all()) continue;
      owner_.segment_->wait_for_channels(
          owner_.rank_, limit, [this] { return advance_all() || finished(); },
          [this](uint32_t peer) { return waits_for(peer); });
    }
  }

 private:
  struct Message {
    Transfer transfer;
    bool started = false;
    uint64_t done_bytes = 0;
    bool finished = false;
  };

  bool finished() const {
    return std::all_of(messages_.begin(), messages_.end(), [](const Message& m) { return m.finished; });
  }

  bool waits_for(uint32_t peer) const {
    return std::any_of(messages_.begin(), messages_.end(),
                       [&](const Message& m) { return !m.finished && m.transfer.peer == peer; });
  }

  // True if any message moved on. A message waits for the earlier ones of its direction and peer.
  bool advance_all() {
    bool moved = false;
    for (size_t i = 0; i < messages_.size(); ++i) {
      Message& message = messages_[i];
      const bool blocked = std::any_of(messages_.begin(), messages_.begin() + i, [&](const Message& earlier) {
        return !earlier.finished && earlier.transfer.sends == message.transfer.sends &&
               earlier.transfer.peer == message.transfer.peer;
      });
      if (message.finished || blocked) continue;
      moved = (message.transfer.sends ? advance_send(message) : advance_receive(message)) || moved;
    }
    return moved;
  }

  bool advance_send(Message& message) {
    const uint32_t peer = message.transfer.peer;
    Channel& channel = owner_.segment_->channel(owner_.rank_, peer);
    uint64_t& number = owner_.messages_sent_[peer];
    bool moved = false;
    if (!message.started) {
      if (channel.posted <= number) return false;
      channel.bytes = message.transfer.bytes;
      channel.offered = number + 1;
      message.started = moved = true;
    }
    while (message.done_bytes < message.transfer.bytes && channel.sent - channel.received < 2) {
      const uint64_t length = std::min<uint64_t>(kChannelBytes, message.transfer.bytes - message.done_bytes);
      std::memcpy(owner_.segment_->channel_data(owner_.rank_, peer, channel.sent),
                  message.transfer.data + message.done_bytes, length);
      message.done_bytes += length;
      channel.sent.fetch_add(1);
      moved = true;
    }
    if (message.done_bytes == message.transfer.bytes) {
      message.finished = true;
      ++number;
    }
    if (moved) owner_.segment_->ring(peer);
    return moved;
  }

  bool advance_receive(Message& message) {
    const uint32_t peer = message.transfer.peer;
    Channel& channel = owner_.segment_->channel(peer, owner_.rank_);
    uint64_t& number = owner_.messages_received_[peer];
    bool moved = false;
    if (!message.started) {
      channel.posted = number + 1;
      message.started = moved = true;
    }
    if (channel.offered > number) {
      check_size(message, channel);
      while (message.done_bytes < message.transfer.bytes && channel.sent > channel.received) {
        const uint64_t length = std::min<uint64_t>(kChannelBytes, message.transfer.bytes - message.done_bytes);
        std::memcpy(message.transfer.data + message.done_bytes,
                    owner_.segment_->channel_data(peer, owner_.rank_, channel.received), length);
        message.done_bytes += length;
        channel.received.fetch_add(1);
        moved = true;
      }
      if (message.done_bytes == message.transfer.bytes) {
        message.finished = moved = true;
        ++number;
      }
    }
    if (moved) owner_.segment_->ring(peer);
    return moved;
  }

  void check_size(const Message& message, const Channel& channel) {
    if (message.done_bytes > 0 || channel.bytes == message.transfer.bytes) return;
    owner_.fail_all(kAicpuException, "rank " + std::to_string(message.transfer.peer) + " sends " +
                                                   std::to_string(channel.bytes) + " bytes to rank " +
                                                   std::to_string(owner_.rank_) + ", which receives " +
                                                   std::to_string(message.transfer.bytes));
  }

  Communicator& owner_;
  const Operation kind_;
  std::vector<Message> messages_;
};

// The directions to peers that some messages need, all or none: two streams that hold a part each would wait for ever.
class Communicator::Lease {
 public:
  Lease(Communicator& owner, const std::vector<Transfer>& transfers) : owner_(owner) {
    for (const Transfer& transfer : transfers) directions_.insert(2 * transfer.peer + (transfer.sends ? 0 : 1));
    std::unique_lock lock(owner_.lease_mutex_);
    while (!are_free()) {
      if (must_give_up()) throw GaveUp();
      owner_.lease_ended_.wait_for(lock, std::chrono::milliseconds(20));
    }
    mark(true);
  }
  ~Lease() {
    std::lock_guard lock(owner_.lease_mutex_);
    mark(false);
    owner_.lease_ended_.notify_all();
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

 private:
  bool are_free() const {
    return std::none_of(directions_.begin(), directions_.end(), [&](uint32_t at) { return owner_.leased_[at]; });
  }
  void mark(bool leased) {
    for (uint32_t at : directions_) owner_.leased_[at] = leased;
  }

  Communicator& owner_;
  std::set<uint32_t> directions_;
};

void Communicator::transfer(Operation kind, const std::vector<Transfer>& transfers) {
  const Lease lease(*this, transfers);
  segment_->throw_if_failed();
  Messenger(*this, kind, transfers).run();
}

}  // namespace emulator::hccl
