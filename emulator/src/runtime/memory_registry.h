// Tells other processes (npu-smi) how much of a chip's memory this one holds: the file <state folder>/<pid>.<chip>,
// eight bytes, little-endian, mapped so that telling is one atomic addition. Without the folder nothing is told.
#pragma once

#include <atomic>
#include <cstdint>

namespace emulator {

class MemoryRegistry {
 public:
  explicit MemoryRegistry(int chip_index) : chip_index_(chip_index) {}

  // The first call creates the file: a process that only looks at a chip does not use it.
  void add(int64_t size_bytes);

 private:
  std::atomic<int64_t>* create() const;

  const int chip_index_;
  std::atomic<std::atomic<int64_t>*> cell_{nullptr};
};

}  // namespace emulator
