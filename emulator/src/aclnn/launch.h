// The two phases of an aclnn call, shared by every generated shim.
#pragma once

#include "aclnn/operator.h"

// CANN's executor: what phase 1 hands to phase 2. It lies inside the launch that it keeps alive.
struct aclOpExecutor {
  emulator::TaskPtr task;
  bool waits = false;  // dynamic outputs: phase 2 returns when the kernel has run
};

namespace emulator::aclnn {

// Refusals that need no knowledge of the operator: product, null arguments, data types of the chip, formats.
void validate(const Operator& op, const void* args);

// Runs the kernel as ATen wants it (no autograd); what it throws becomes a Failure of the launch.
void execute(const Operator& op, const void* args);

// The part of execute() on which the host may act: see aclnn/without_compute.cpp.
void execute_without_compute(const Operator& op, const void* args);

// One read of each input and one write of each output, one vector operation per output element.
Work vector_work(const Operator& op, const void* args);

[[noreturn]] void refuse_unimplemented(const char* name);

// Copies the C arguments (`context` points at them) into a new argument struct at `args`.
using Fill = void (*)(void* context, void* args);

aclError prepare(const Operator& op, uint64_t* workspace_size, aclOpExecutor** executor, Fill fill,
                 void* context) noexcept;
aclError launch(const char* name, aclOpExecutor* executor, aclrtStream stream) noexcept;
aclError unimplemented(const char* name) noexcept;

// Phase 1 as the shims call it. Not more than this is a template: there are some 550 shims.
template <class Args, class Copy>
aclError prepare(uint64_t* workspace_size, aclOpExecutor** executor, Copy copy) noexcept {
  return prepare(
      Args::the_operator, workspace_size, executor,
      [](void* context, void* args) { (*static_cast<Copy*>(context))(*new (args) Args); }, &copy);
}

template <class Args>
void destroy(void* args) {
  static_cast<Args*>(args)->~Args();
}

}  // namespace emulator::aclnn
