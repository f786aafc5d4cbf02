// The operators that are executed through aclop: each checks a call and makes the task that carries it out.
#pragma once

#include <string>
#include <vector>

#include "aclop/attributes.h"
#include "aclop/operand.h"
#include "core/task.h"

namespace emulator::aclop {

struct Call {
  std::vector<Operand> inputs;
  std::vector<Operand> outputs;
  aclopAttr attributes;
};

using Make = TaskPtr (*)(const Call& call);

// Null for an operator that is not emulated.
Make find_operator(const std::string& type);

TaskPtr make_identity(const Call& call);

void require_operands(const Call& call, size_t inputs, size_t outputs);

}  // namespace emulator::aclop
