#include "hccl/operation_task.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <thread>

#include "core/clock.h"
#include "core/errors.h"
#include "core/faults.h"
#include "core/task.h"
#include "hccl/collective_cost.h"
#include "hccl/errors.h"
#include "hccl/group.h"
#include "runtime/device.h"

namespace emulator::hccl {
namespace {

class OperationTask final : public Task {
 public:
  OperationTask(std::shared_ptr<Communicator> communicator, Operation operation, Traffic traffic,
                std::function<void()> body)
      : communicator_(std::move(communicator)), operation_(operation), traffic_(traffic), body_(std::move(body)) {}

  const char* name() const override { return name_of(operation_); }
  TaskKind kind() const override { return TaskKind::kCollective; }

  void run() override {
    guarded([this] { body_(); });
  }

  // Messages carry what the host of another rank waits for and are moved; collectives only take their time.
  void run_without_compute() override {
    if (is_message()) return run();
    if (Clock::models_time()) guarded([this] { communicator_->meet(operation_); });
  }

  Work work() const override {
    Work work;
    work.read_bytes = static_cast<double>(traffic_.sent_bytes);
    work.written_bytes = static_cast<double>(traffic_.received_bytes);
    return work;
  }

 private:
  bool is_message() const {
    return operation_ == Operation::kSend || operation_ == Operation::kReceive ||
           operation_ == Operation::kBatchSendReceive;
  }

  template <typename Body>
  void guarded(Body&& body) {
    try {
      // The peer's time of arrival is the wall clock's: a message must not leave before its modelled time.
      if (Clock::models_time() && is_message()) Clock::sleep_until(Clock::timeline().end_ns());
      stall();
      body();
      if (Clock::models_time()) charge();
    } catch (const Failure& failure) {
      communicator_->set_asynchronous_error(hccl_result_of(failure.code()));
      fprintf(stderr, "[ERROR] [HCCL] %s\n", failure.what());
      throw;
    }
  }

  // A rank that comes late, on demand: the others wait for it.
  void stall() const {
    const double seconds = faults().collective_stall_s(current_device().chip_index());
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    while (std::chrono::steady_clock::now() < end) {
      if (must_give_up()) throw GaveUp();
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }

  void charge() {
    if (is_message()) Clock::timeline().reach(Clock::now_ns());
    const auto bytes = static_cast<double>(std::max(traffic_.sent_bytes, traffic_.received_bytes));
    Clock::timeline().advance(collective_cost_ns(communicator_->link(), operation_, communicator_->size(), bytes));
  }

  const std::shared_ptr<Communicator> communicator_;
  const Operation operation_;
  const Traffic traffic_;
  const std::function<void()> body_;
};

}  // namespace

void submit_operation(std::shared_ptr<Communicator> communicator, Operation operation, aclrtStream stream,
                      Traffic traffic, std::function<void()> body) {
  auto task = std::make_shared<OperationTask>(std::move(communicator), operation, traffic, std::move(body));
  if (in_group()) {
    add_collective(std::move(task), stream);
  } else {
    submit(stream, std::move(task));
  }
}

}  // namespace emulator::hccl
