#include "runtime/memory_registry.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <mutex>
#include <new>
#include <string>
#include <vector>

namespace emulator {
namespace {

// What a process that is killed leaves behind is removed by the reader.
void remove_at_exit(const std::string& path) {
  static auto& paths = *new std::vector<std::string>;
  static const pid_t owner = getpid();  // a forked child must not remove its parent's files
  static const bool registered = [] {
    return std::atexit([] {
             if (getpid() != owner) return;
             for (const std::string& each : paths) unlink(each.c_str());
           }) == 0;
  }();
  if (registered) paths.push_back(path);
}

std::atomic<int64_t>* unseen_cell() {
  static std::atomic<int64_t> cell{0};
  return &cell;
}

}  // namespace

std::atomic<int64_t>* MemoryRegistry::create() const {
  const char* folder = std::getenv("ASCEND_EMULATOR_STATE_DIR");
  if (folder == nullptr || *folder == '\0') return unseen_cell();
  const std::string path =
      std::string(folder) + "/" + std::to_string(getpid()) + "." + std::to_string(chip_index_);
  const int descriptor = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor < 0) return unseen_cell();
  void* mapped = MAP_FAILED;
  if (ftruncate(descriptor, sizeof(int64_t)) == 0) {
    mapped = mmap(nullptr, sizeof(int64_t), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  }
  close(descriptor);
  remove_at_exit(path);
  return mapped == MAP_FAILED ? unseen_cell() : new (mapped) std::atomic<int64_t>(0);
}

void MemoryRegistry::add(int64_t size_bytes) {
  std::atomic<int64_t>* cell = cell_.load(std::memory_order_acquire);
  if (cell == nullptr) {
    static std::mutex& mutex = *new std::mutex;
    std::lock_guard lock(mutex);
    cell = cell_.load(std::memory_order_acquire);
    if (cell == nullptr) cell_.store(cell = create(), std::memory_order_release);
  }
  cell->fetch_add(size_bytes, std::memory_order_relaxed);
}

}  // namespace emulator
