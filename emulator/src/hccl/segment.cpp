#include "hccl/segment.h"

#include <acl/acl.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <cstring>
#include <mutex>

#include "core/errors.h"
#include "core/rounding.h"
#include "core/spin_lock.h"
#include "core/task.h"
#include "hccl/process.h"

namespace emulator::hccl {
namespace {

constexpr auto kHealthInterval = std::chrono::milliseconds(100);
constexpr int kSpins = 1000;  // some 20 us: longer than a hand-over between two running ranks takes

struct Layout {
  size_t members, channels, channel_data, slots, total;

  explicit Layout(uint32_t ranks) {
    members = round_up(sizeof(Header));
    channels = round_up(members + ranks * sizeof(Member));
    channel_data = round_up(channels + size_t{ranks} * ranks * sizeof(Channel));
    slots = channel_data + size_t{ranks} * ranks * 2 * kChannelBytes;
    total = slots + size_t{ranks} * 2 * kSlotBytes;
  }

  static size_t round_up(size_t size) { return round_up_to(size, 4096); }
};

void wake_all(std::atomic<uint32_t>& word) { syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0); }

int available_cores() {
  cpu_set_t cores;
  return sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
}

}  // namespace

Limit Limit::after(int64_t seconds, std::string what, const char* variable) {
  Limit limit;
  limit.what = std::move(what);
  limit.setting = std::string(variable) + "=" + std::to_string(seconds) + " s";
  if (seconds > 0) limit.end = Deadline::after_ms(seconds * 1000);
  return limit;
}

int Segment::create_file(uint32_t ranks) {
  const int file = memfd_create("ascend_emulator_hccl", MFD_CLOEXEC);
  if (file < 0) fail(ACL_ERROR_STORAGE_OVER_LIMIT, "memfd_create failed: %s", strerror(errno));
  // Pages exist once they are touched, so that the size costs nothing.
  if (ftruncate(file, static_cast<off_t>(Layout(ranks).total)) != 0) {
    const int error = errno;
    close(file);
    fail(ACL_ERROR_STORAGE_OVER_LIMIT, "ftruncate failed: %s", strerror(error));
  }
  return file;
}

Segment::Segment(int file, uint32_t ranks) : ranks_(ranks) {
  const Layout layout(ranks);
  size_ = layout.total;
  void* memory = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (memory == MAP_FAILED) fail(ACL_ERROR_STORAGE_OVER_LIMIT, "mapping shared memory failed: %s", strerror(errno));
  memory_ = static_cast<char*>(memory);
  header_ = reinterpret_cast<Header*>(memory_);
  members_ = reinterpret_cast<Member*>(memory_ + layout.members);
  channels_ = reinterpret_cast<Channel*>(memory_ + layout.channels);
  channel_data_ = memory_ + layout.channel_data;
  slots_ = memory_ + layout.slots;
  spins_ = static_cast<int>(ranks) <= available_cores() ? kSpins : 0;
}

Segment::~Segment() { munmap(memory_, size_); }

char* Segment::channel_data(uint32_t from, uint32_t to, uint64_t piece) {
  return channel_data_ + ((size_t{from} * ranks_ + to) * 2 + piece % 2) * kChannelBytes;
}

char* Segment::slot(uint32_t rank, uint64_t round) { return slots_ + (size_t{rank} * 2 + round % 2) * kSlotBytes; }

void Segment::attach(uint32_t rank, int chip) {
  Member& self = members_[rank];
  self.chip = chip;
  self.start_ticks = process_start_ticks(getpid());
  if (self.pid.exchange(getpid()) != 0) {
    fail_all(rank, ACL_ERROR_INVALID_PARAM, "rank " + std::to_string(rank) + " joined the communicator twice");
  }
  header_->attached.fetch_add(1);
  wake_all(header_->attached);
}

void Segment::wait_until_all_attached(uint32_t rank, const Limit& limit) {
  const auto missing = [this](uint32_t peer) { return members_[peer].pid == 0; };
  auto next_look = Clock::now() + kHealthInterval;
  for (uint32_t seen; (seen = header_->attached) < ranks_;) {
    sleep_on(header_->attached, seen, rank, limit, missing, next_look);
  }
}

void Segment::leave(uint32_t rank) {
  members_[rank].left = 1;
  wake_all(header_->released);
  for (uint32_t peer = 0; peer < ranks_; ++peer) ring(peer);
}

void Segment::barrier(uint32_t rank, const Limit& limit) {
  throw_if_failed();
  const uint64_t target = members_[rank].barriers.fetch_add(1) + 1;
  if (header_->arrivals.fetch_add(1) + 1 == target * ranks_) {
    header_->released.store(static_cast<uint32_t>(target));
    if (header_->waiting != 0) wake_all(header_->released);
    return;
  }
  const auto released = [&] { return static_cast<int32_t>(header_->released - static_cast<uint32_t>(target)) >= 0; };
  for (int i = 0; i < spins_; ++i) {
    if (released()) return;
    relax_cpu();
  }
  const auto behind = [&](uint32_t peer) { return members_[peer].barriers < target; };
  header_->waiting.fetch_add(1);
  auto next_look = Clock::now() + kHealthInterval;
  try {
    for (uint32_t seen = header_->released; !released(); seen = header_->released) {
      sleep_on(header_->released, seen, rank, limit, behind, next_look);
    }
  } catch (...) {
    header_->waiting.fetch_sub(1);
    throw;
  }
  header_->waiting.fetch_sub(1);
}

void Segment::wait_for_channels(uint32_t rank, const Limit& limit, const std::function<bool()>& ready,
                                const Blame& blame) {
  Member& self = members_[rank];
  for (int i = 0; i < spins_; ++i) {
    if (ready()) return;
    relax_cpu();
  }
  self.waiting.fetch_add(1);
  auto next_look = Clock::now() + kHealthInterval;
  try {
    for (;;) {
      const uint32_t seen = self.doorbell;
      if (ready()) break;
      sleep_on(self.doorbell, seen, rank, limit, blame, next_look);
    }
  } catch (...) {
    self.waiting.fetch_sub(1);
    throw;
  }
  self.waiting.fetch_sub(1);
}

void Segment::ring(uint32_t rank) {
  members_[rank].doorbell.fetch_add(1);
  if (members_[rank].waiting != 0) wake_all(members_[rank].doorbell);
}

void Segment::sleep_on(std::atomic<uint32_t>& word, uint32_t seen, uint32_t rank, const Limit& limit,
                       const Blame& blame, Clock::time_point& next_look) {
  const timespec interval{0, std::chrono::nanoseconds(kHealthInterval).count()};
  syscall(SYS_futex, &word, FUTEX_WAIT, seen, &interval, nullptr, 0);
  throw_if_failed();
  if (Clock::now() < next_look) return;
  next_look = Clock::now() + kHealthInterval;
  // Peers cannot go on without this rank, and would wait for it until their time is up.
  if (must_give_up()) {
    declare_failed(rank, ACL_ERROR_RT_SUSPECT_REMOTE_ERROR,
             "the chip of rank " + std::to_string(rank) + " failed, or its stream was destroyed, in " + limit.what);
    throw GaveUp();
  }
  check_peers(rank, limit, blame);
}

// Called while a rank waits for those that `blame` holds for.
void Segment::check_peers(uint32_t rank, const Limit& limit, const Blame& blame) {
  std::string late;
  for (uint32_t peer = 0; peer < ranks_; ++peer) {
    if (peer == rank || !blame(peer)) continue;
    Member& member = members_[peer];
    late += (late.empty() ? "" : ", ") + std::to_string(peer);
    if (member.pid == 0) continue;
    const std::string name = "rank " + std::to_string(peer) + " (process " + std::to_string(member.pid) + ")";
    if (!process_is_alive(member.pid, member.start_ticks)) {
      fail_all(rank, ACL_ERROR_RT_SUSPECT_REMOTE_ERROR,
               name + " died while rank " + std::to_string(rank) + " waited for it in " + limit.what);
    }
    if (member.left != 0) {
      fail_all(rank, ACL_ERROR_RT_SUSPECT_REMOTE_ERROR, name + " destroyed its communicator while rank " +
                                                      std::to_string(rank) + " waited for it in " + limit.what);
    }
  }
  if (!limit.end.passed()) return;
  fail_all(rank, ACL_ERROR_RT_FFTS_PLUS_TIMEOUT, "EI0002: " + limit.what + " of rank " + std::to_string(rank) +
                                               " waited for rank " + late + " longer than " + limit.setting);
}

void Segment::fail_all(uint32_t rank, int32_t code, const std::string& why) {
  declare_failed(rank, code, why);
  throw Failure(code, why);
}

void Segment::declare_failed(uint32_t rank, int32_t code, const std::string& why) {
  Member& self = members_[rank];
  // Several threads of a rank may fail at once, and a peer may be reading: what was named once is not written again.
  static std::mutex& mutex = *new std::mutex;
  {
    std::lock_guard lock(mutex);
    if (header_->failed_rank.load() != rank + 1) {
      self.failure_code = code;
      snprintf(self.failure, sizeof self.failure, "%s", why.c_str());
    }
    // A rank that is killed before this has told nothing, and nobody waits for the rest of it.
    uint32_t nobody = 0;
    header_->failed_rank.compare_exchange_strong(nobody, rank + 1);
  }
  wake_all(header_->attached);
  wake_all(header_->released);
  for (uint32_t peer = 0; peer < ranks_; ++peer) ring(peer);
}

void Segment::throw_if_failed() {
  const uint32_t failed = header_->failed_rank.load();
  if (failed == 0) return;
  const Member& member = members_[failed - 1];
  throw Failure(member.failure_code, member.failure);
}

}  // namespace emulator::hccl
