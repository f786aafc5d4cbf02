// Launches under a clock that does not compute (core/clock.h): tensors of integers steer the program, so they get
// defined values; tensors of numbers do not, and stay as they are.
#include <cstring>
#include <exception>

#include "aclnn/launch.h"
#include "core/clock.h"

namespace emulator::aclnn {
namespace {

constexpr size_t kIntegerWorkBytes = 64 << 10;  // of all tensors together: some microseconds of a CPU

bool steers(const TensorView& tensor) {
  return tensor.dtype == ACL_BOOL || (!is_floating(tensor.dtype) && !is_complex(tensor.dtype));
}

template <typename Visit>  // Visit(const TensorView&, bool output)
void for_each_tensor(const Operator& op, const void* args, Visit&& visit) {
  for (size_t i = 0; i < op.parameter_count; ++i) {
    const Parameter& parameter = op.parameters[i];
    const void* field = static_cast<const char*>(args) + parameter.offset;
    if (parameter.kind == ParameterKind::kTensor) {
      const auto& tensor = *static_cast<const TensorView*>(field);
      if (tensor.defined()) visit(tensor, parameter.output);
    } else if (parameter.kind == ParameterKind::kTensorList) {
      for (const TensorView& tensor : *static_cast<const TensorList*>(field)) {
        if (tensor.defined()) visit(tensor, parameter.output);
      }
    }
  }
}

void zero(const TensorView& tensor) {
  const auto bytes = static_cast<size_t>(size_in_bytes(tensor.sizes, tensor.dtype));
  if (bytes <= kHostVisibleBytes && tensor.is_contiguous()) std::memset(tensor.data(), 0, bytes);
}

}  // namespace

void execute_without_compute(const Operator& op, const void* args) {
  if (op.has_dynamic_output) return execute(op, args);  // the host waits for the sizes
  bool any_integer_output = false, all_integers = true;
  int64_t bytes = 0;
  for_each_tensor(op, args, [&](const TensorView& tensor, bool output) {
    const bool integer = steers(tensor);
    any_integer_output |= output && integer;
    all_integers &= integer;
    bytes += size_in_bytes(tensor.sizes, tensor.dtype);
  });
  if (!any_integer_output) return;
  if (all_integers) {
    if (bytes > static_cast<int64_t>(kIntegerWorkBytes)) return;
    try {
      return execute(op, args);
    } catch (const Failure&) {
      // An index that was never computed may lie outside its tensor; what it selects is then as good as 0.
    }
  }
  for_each_tensor(op, args, [](const TensorView& tensor, bool output) {
    if (output && steers(tensor)) zero(tensor);
  });
}

}  // namespace emulator::aclnn
