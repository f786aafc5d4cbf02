// The two phases of an aclnn call, shared by every generated shim.
#pragma once

#include <memory>

#include "aclnn/operator.h"

namespace emulator::aclnn {
class LaunchBase;
}

// CANN's executor: what phase 1 hands to phase 2.
struct aclOpExecutor {
  std::shared_ptr<emulator::aclnn::LaunchBase> task;
};

namespace emulator::aclnn {

// Refusals that need no knowledge of the operator: product, null arguments, data types of the chip, formats.
void validate(const Operator& op, const void* args);

// Of a launch that runs: a captured one may outlive the memory of its tensors. Throws Failure(507015).
void check_memory(const Operator& op, const void* args);

// Runs the kernel as ATen wants it (no autograd); what it throws becomes a Failure of the launch.
void execute(const Operator& op, const void* args);

// What a kernel does with its workspace, besides computing: whoever uses that memory meanwhile shall notice.
void fill_workspace(const char* name, void* workspace, uint64_t size_bytes);

// The part of execute() on which the host may act: see aclnn/without_compute.cpp.
void execute_without_compute(const Operator& op, const void* args);

// One read of each input and one write of each output, one vector operation per output element.
Work vector_work(const Operator& op, const void* args);

[[noreturn]] void refuse_unimplemented(const char* name);

// Copies the C arguments (`context` points at them) into a new argument struct at `args`.
using Fill = void (*)(void* context, void* args);

aclError prepare(const Operator& op, bool largest, uint64_t* workspace_size, aclOpExecutor** executor, Fill fill,
                 void* context) noexcept;
aclError launch(const char* name, void* workspace, uint64_t workspace_size, aclOpExecutor* executor,
                aclrtStream stream) noexcept;
aclError unimplemented(const char* name) noexcept;

// Phase 1 as the shims call it. Not more than this is a template: there are some 550 shims.
template <class Args, class Copy>
aclError prepare(bool largest, uint64_t* workspace_size, aclOpExecutor** executor, Copy copy) noexcept {
  return prepare(
      Args::the_operator, largest, workspace_size, executor,
      [](void* context, void* args) { (*static_cast<Copy*>(context))(*new (args) Args); }, &copy);
}

template <class Args>
void destroy(void* args) {
  static_cast<Args*>(args)->~Args();
}

}  // namespace emulator::aclnn
