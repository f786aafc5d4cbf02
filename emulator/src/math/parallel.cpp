#include "math/parallel.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <thread>

#include "core/spin_lock.h"

namespace emulator {

namespace {

// A range is 1 / (kShare * threads) of what is left: the last are small, so that all threads end together.
constexpr int64_t kShare = 2;
// As a stream's: spans the small operators between two products.
constexpr auto kSpinTime = std::chrono::microseconds(20);

using Body = std::function<void(int64_t, int64_t)>;

template <typename Condition>
void spin_until(Condition&& condition) {
  const auto end = std::chrono::steady_clock::now() + kSpinTime;
  do {
    for (int i = 0; i < 32; ++i) {
      if (condition()) return;
      relax_cpu();
    }
  } while (std::chrono::steady_clock::now() < end);
}

// One loop. It lives on its caller's stack, so helpers enter and leave it under the pool's mutex.
struct Loop {
  const Body& body;
  int64_t end;
  int64_t grain;
  int64_t threads;
  std::atomic<int64_t> next;
  int64_t places;                // helpers that may still enter
  std::atomic<int> helpers = 0;  // in it at present
  std::exception_ptr error = nullptr;  // of a helper; guarded by the pool's mutex

  bool exhausted() const { return next.load(std::memory_order_relaxed) >= end; }

  void work() {
    int64_t from = next.load(std::memory_order_relaxed);
    while (from < end) {
      const int64_t to = std::min(from + std::max(grain, (end - from) / (kShare * threads)), end);
      if (!next.compare_exchange_weak(from, to, std::memory_order_relaxed)) continue;
      body(from, to);
      from = next.load(std::memory_order_relaxed);
    }
  }
};

// As OpenMP would count, for a process without torch.
int64_t openmp_threads() {
  const char* set = std::getenv("OMP_NUM_THREADS");
  const int64_t wanted = set ? std::strtoll(set, nullptr, 10) : 0;
  return wanted > 0 ? wanted : std::max(1u, std::thread::hardware_concurrency());
}

std::atomic<ClaimThreads> claim_threads = &openmp_threads;

// What the claim answered when the calling thread first asked.
int64_t thread_count() {
  static thread_local const int64_t count = claim_threads.load()();
  return count;
}

class Pool {
 public:
  static Pool& instance() {
    static Pool& pool = *new Pool;  // never destroyed: its threads outlive the C++ runtime's end
    return pool;
  }

  // False if another stream's loop has the helpers: its caller then does without.
  bool run(Loop& loop) {
    std::unique_lock owner(owner_, std::try_to_lock);
    if (!owner) return false;
    start_helpers(loop.places);
    post(loop);
    std::exception_ptr error;
    try {
      loop.work();
    } catch (...) {
      error = std::current_exception();
      loop.next.store(loop.end);
    }
    retire(loop);
    if (!error) error = loop.error;
    if (error) std::rethrow_exception(error);
    return true;
  }

 private:
  void start_helpers(int64_t count) {
    for (; started_ < count; ++started_) {
      std::thread([this] { help(); }).detach();
    }
  }

  void post(Loop& loop) {
    const int64_t wanted = loop.places;
    {
      std::lock_guard lock(mutex_);
      loop_ = &loop;
      posted_.fetch_add(1);
    }
    for (int64_t i = 0; i < wanted; ++i) wake_.notify_one();
  }

  void retire(Loop& loop) {
    {
      std::lock_guard lock(mutex_);
      loop_ = nullptr;
    }
    const auto left_alone = [&] { return loop.helpers.load(std::memory_order_acquire) == 0; };
    spin_until(left_alone);
    std::unique_lock lock(mutex_);
    left_.wait(lock, left_alone);
  }

  void help() {
    pthread_setname_np(pthread_self(), "npu-helper");
    uint64_t seen = 0;
    std::unique_lock lock(mutex_);
    for (;;) {
      lock.unlock();
      spin_until([&] { return posted_.load(std::memory_order_relaxed) != seen; });
      lock.lock();
      wake_.wait(lock, [&] { return posted_.load(std::memory_order_relaxed) != seen; });
      seen = posted_.load(std::memory_order_relaxed);
      Loop* loop = loop_;
      if (loop == nullptr || loop->places == 0 || loop->exhausted()) continue;
      --loop->places;
      loop->helpers.fetch_add(1);
      lock.unlock();
      std::exception_ptr error;
      try {
        loop->work();
      } catch (...) {
        error = std::current_exception();
        loop->next.store(loop->end);
      }
      lock.lock();
      if (error) loop->error = error;
      if (loop->helpers.fetch_sub(1, std::memory_order_release) == 1) left_.notify_one();
    }
  }

  std::mutex owner_;     // held by the caller of the loop that the helpers serve
  int64_t started_ = 0;  // guarded by owner_

  std::mutex mutex_;
  Loop* loop_ = nullptr;
  std::atomic<uint64_t> posted_{0};
  std::condition_variable wake_;
  std::condition_variable left_;
};

}  // namespace

void share_threads() { thread_count(); }

void set_claim_threads(ClaimThreads claim) { claim_threads.store(claim); }

void parallel_for(int64_t begin, int64_t end, int64_t grain, const Body& body) {
  const int64_t count = end - begin;
  if (count <= 0) return;
  if (count <= grain) return body(begin, end);
  const int64_t threads = std::min(thread_count(), (count + grain - 1) / grain);
  Loop loop{.body = body, .end = end, .grain = grain, .threads = threads, .next = begin, .places = threads - 1};
  if (threads == 1 || !Pool::instance().run(loop)) body(begin, end);
}

}  // namespace emulator
