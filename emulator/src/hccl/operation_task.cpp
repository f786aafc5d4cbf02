#include "hccl/operation_task.h"

#include <cstdio>

#include "core/errors.h"
#include "core/task.h"
#include "hccl/errors.h"

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
    try {
      body_();
    } catch (const Failure& failure) {
      communicator_->set_asynchronous_error(hccl_result_of(failure.code()));
      fprintf(stderr, "[ERROR] [HCCL] %s\n", failure.what());
      throw;
    }
  }

  Work work() const override {
    Work work;
    work.read_bytes = static_cast<double>(traffic_.sent_bytes);
    work.written_bytes = static_cast<double>(traffic_.received_bytes);
    return work;
  }

 private:
  const std::shared_ptr<Communicator> communicator_;
  const Operation operation_;
  const Traffic traffic_;
  const std::function<void()> body_;
};

}  // namespace

void submit_operation(std::shared_ptr<Communicator> communicator, Operation operation, aclrtStream stream,
                      Traffic traffic, std::function<void()> body) {
  submit(stream, std::make_shared<OperationTask>(std::move(communicator), operation, traffic, std::move(body)));
}

}  // namespace emulator::hccl
