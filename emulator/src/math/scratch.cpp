#include "math/scratch.h"

#include <cstdlib>
#include <memory>
#include <new>

namespace emulator {

namespace {

struct Buffer {
  std::unique_ptr<float, decltype(&std::free)> memory{nullptr, &std::free};
  int64_t capacity = 0;
};

}  // namespace

float* scratch(ScratchSlot slot, int64_t count) {
  static thread_local Buffer buffers[static_cast<int>(ScratchSlot::kCount)];
  Buffer& buffer = buffers[static_cast<int>(slot)];
  if (buffer.capacity < count) {
    const int64_t capacity = (count + count / 4 + 1023) / 1024 * 1024;
    buffer.memory.reset(static_cast<float*>(std::aligned_alloc(64, capacity * sizeof(float))));
    buffer.capacity = buffer.memory == nullptr ? 0 : capacity;
    if (buffer.memory == nullptr) throw std::bad_alloc();
  }
  return buffer.memory.get();
}

}  // namespace emulator
