// The one place where aclnn meets ATen's dispatcher and exceptions.
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdio>

#include "aclnn/launch.h"
#include "aclnn/saturate.h"
#include "core/running_kernel.h"
#include "math/parallel.h"
#include "silicon/rules.h"

namespace emulator::aclnn {
namespace {

struct Running {
  const Operator& op;
  const void* args;
};

size_t describe_tensor(const char* name, const TensorView& tensor, char* text, size_t room) {
  if (!tensor.defined()) return 0;
  size_t used = 0;
  const auto append = [&](const char* format, auto... values) {
    if (used < room) used += static_cast<size_t>(snprintf(text + used, room - used, format, values...));
  };
  append(", %s %s [", name, dtype_name(tensor.dtype));
  for (const int64_t size : tensor.sizes) append("%lld,", static_cast<long long>(size));
  append("] strides [");
  for (const int64_t stride : tensor.strides) append("%lld,", static_cast<long long>(stride));
  append("] at %p + %lld", tensor.base, static_cast<long long>(tensor.storage_offset));
  return std::min(used, room);
}

// The tensors of a launch, in a signal handler.
void describe(const void* context, char* text, size_t size) {
  const auto& [op, args] = *static_cast<const Running*>(context);
  size_t used = 0;
  for (size_t i = 0; i < op.parameter_count; ++i) {
    const Parameter& parameter = op.parameters[i];
    const void* field = static_cast<const char*>(args) + parameter.offset;
    if (parameter.kind == ParameterKind::kTensor) {
      used += describe_tensor(parameter.name, *static_cast<const TensorView*>(field), text + used, size - used);
    } else if (parameter.kind == ParameterKind::kTensorList) {
      for (const TensorView& tensor : *static_cast<const TensorList*>(field)) {
        used += describe_tensor(parameter.name, tensor, text + used, size - used);
      }
    }
  }
}

}  // namespace

void execute(const Operator& op, const void* args) {
  const Running running{op, args};
  const RunningKernel told(op.name, describe, &running);
  try {
    share_threads();
    check_memory(op, args);
    const c10::InferenceMode no_autograd;  // thread-local, and user code may share the thread: restored on return
    op.kernel(args);
    if (!op.moves && enforces(Rule::kSaturation)) saturate_results(op, args);
  } catch (const c10::Error& error) {  // what() would add ATen's own backtrace
    fail(kAicoreException, "%s failed on the device: %s", op.name, error.what_without_backtrace());
  }
}

}  // namespace emulator::aclnn
