#include "runtime/host_callbacks.h"

#include <acl/error_codes/rt_error_codes.h>
#include <pthread.h>

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>

#include "core/clock.h"
#include "core/errors.h"
#include "runtime/stream.h"

namespace emulator {
namespace {

struct Call {
  aclrtCallback function;
  void* data;
  const Stream* stream;
  bool done = false;  // or nobody is left to run it
};

struct Inbox {
  std::deque<std::shared_ptr<Call>> calls;
  int subscriptions = 0;
};

struct Board {
  std::mutex mutex;
  std::condition_variable changed;
  std::map<uint64_t, Inbox> inboxes;                 // by thread
  std::map<const Stream*, uint64_t> threads;         // by stream
};

Board& board() {
  static auto& instance = *new Board;
  return instance;
}

class CallbackTask : public Task {
 public:
  CallbackTask(Stream& stream, aclrtCallback function, void* data, bool blocking)
      : stream_(stream), function_(function), data_(data), blocking_(blocking) {}
  const char* name() const override { return "Callback"; }
  TaskKind kind() const override { return TaskKind::kHostCallback; }
  void run_without_compute() override { run(); }
  void run() override {
    if (Clock::models_time()) Clock::sleep_until(Clock::timeline().end_ns());
    post();
    if (Clock::models_time() && blocking_) Clock::timeline().reach(Clock::now_ns());
  }

 private:
  void post() {
    auto& shared = board();
    std::unique_lock lock(shared.mutex);
    const auto thread = shared.threads.find(&stream_);
    if (thread == shared.threads.end()) return;  // unsubscribed since: nobody is left to run it
    auto call = std::make_shared<Call>(Call{function_, data_, &stream_});
    shared.inboxes[thread->second].calls.push_back(call);
    shared.changed.notify_all();
    while (blocking_ && !call->done && !stream_.must_give_up()) {
      shared.changed.wait_for(lock, std::chrono::milliseconds(20));
    }
  }

  Stream& stream_;
  aclrtCallback function_;
  void* data_;
  bool blocking_;
};

}  // namespace

void subscribe_callbacks(uint64_t thread, Stream& stream) {
  auto& shared = board();
  std::lock_guard lock(shared.mutex);
  if (!shared.threads.emplace(&stream, thread).second) {
    fail(ACL_ERROR_RT_STREAM_SUBSCRIBE, "stream %d already reports to a thread.", stream.id());
  }
  ++shared.inboxes[thread].subscriptions;
}

void unsubscribe_callbacks(uint64_t thread, Stream& stream) {
  auto& shared = board();
  std::lock_guard lock(shared.mutex);
  const auto found = shared.threads.find(&stream);
  if (found == shared.threads.end() || found->second != thread) {
    fail(ACL_ERROR_RT_STREAM_SUBSCRIBE, "stream %d does not report to that thread.", stream.id());
  }
  shared.threads.erase(found);
  Inbox& inbox = shared.inboxes[thread];
  std::erase_if(inbox.calls, [&](const auto& call) {
    const bool is_orphan = call->stream == &stream;
    if (is_orphan) call->done = true;  // its stream goes on, as for a callback that comes after this
    return is_orphan;
  });
  if (--inbox.subscriptions == 0) shared.inboxes.erase(thread);
  shared.changed.notify_all();
}

void launch_callback(Stream& stream, aclrtCallback function, void* data, bool blocking) {
  {
    auto& shared = board();
    std::lock_guard lock(shared.mutex);
    if (shared.threads.count(&stream) == 0) {
      fail(ACL_ERROR_RT_STREAM_NO_CB_REG, "stream %d reports to no thread; call aclrtSubscribeReport first.",
           stream.id());
    }
  }
  stream.append(std::make_shared<CallbackTask>(stream, function, data, blocking));
}

void process_one_callback(const Deadline& deadline) {
  auto& shared = board();
  const auto thread = static_cast<uint64_t>(pthread_self());
  std::unique_lock lock(shared.mutex);
  for (;;) {
    const auto inbox = shared.inboxes.find(thread);
    if (inbox == shared.inboxes.end()) {
      fail(ACL_ERROR_RT_THREAD_SUBSCRIBE, "no stream reports to this thread.");
    }
    if (!inbox->second.calls.empty()) {
      const auto call = inbox->second.calls.front();
      inbox->second.calls.pop_front();
      lock.unlock();
      call->function(call->data);
      lock.lock();
      call->done = true;
      shared.changed.notify_all();
      return;
    }
    if (deadline.passed()) fail(ACL_ERROR_RT_REPORT_TIMEOUT, "no callback arrived within the time limit.");
    shared.changed.wait_until(lock, deadline.or_in(std::chrono::hours(1)));
  }
}

}  // namespace emulator
