// Which kernels this process is running, told when one of them kills it: a fault in a kernel is a bug of the emulator (or of
// memory that was taken away under a captured graph), and "Segmentation fault" alone names neither.
#pragma once

#include <cstddef>

namespace emulator {

// While it lives, a fatal signal of any thread writes `name` and what `describe` says of `context` to stderr, and then takes
// its course (the handler that was there before, or the end of the process). Costs two stores.
class RunningKernel {
 public:
  // Called in a signal handler: writes text into the buffer and allocates nothing.
  using Describe = void (*)(const void* context, char* buffer, size_t size);

  RunningKernel(const char* name, Describe describe, const void* context);
  ~RunningKernel();
  RunningKernel(const RunningKernel&) = delete;

 private:
  struct Slot* slot_;  // null where more threads run kernels than there are slots
};

}  // namespace emulator
