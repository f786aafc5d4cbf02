// ATB's functions in aclnn's style: a first phase that checks and prepares, a second that queues the work.
#pragma once

#include <functional>
#include <vector>

#include "atb/operation.h"
#include "core/descriptors.h"

namespace emulator {

// What the first phase leaves for the second.
struct ApiLaunch {
  Work work;
  std::function<void()> body;
};

// First phase of the function `name`: what `check` returns is kept in *operation, which is made if it is null (torch_npu
// keeps operations and passes them again).
::atb::Status prepare(const char* name, uint64_t* workspace_size, ::atb::Operation** operation, ::atb::Context* context,
                      const std::function<ApiLaunch()>& check);
::atb::Status execute(const char* name, ::atb::Operation* operation, ::atb::Context* context);

// A descriptor by value; undefined for a null pointer. Throws Failure unless its elements lie in device memory.
TensorView view_of(const aclTensor* tensor);

// Lengths in a tensor on the host, read at once. Throws Failure unless it is int32 (all rows, if there are several).
std::vector<int32_t> host_lengths(const aclTensor* tensor, const char* name);

void require_type(const TensorView& tensor, const char* name, std::initializer_list<aclDataType> accepted);
void require_shape(const TensorView& tensor, const char* name, const Dims& expected);
double bytes_of(const TensorView& tensor);

}  // namespace emulator
