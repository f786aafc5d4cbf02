// Device memory that several processes use.
#include <acl/error_codes/rt_error_codes.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string>

#include "core/errors.h"
#include "core/tensor.h"
#include "runtime/allocation_tables.h"

namespace emulator {
namespace {

class OpenFile {
 public:
  explicit OpenFile(int descriptor) : descriptor_(descriptor) {}
  ~OpenFile() { close(descriptor_); }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

// The file of another process, through /proc: no name in the file system that a killed process could leave behind.
int open_file_of(int process, int file) {
  const std::string path = "/proc/" + std::to_string(process) + "/fd/" + std::to_string(file);
  const int opened = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (opened < 0) {
    fail(ACL_ERROR_RT_IPC_ERROR, "Device memory of process %d cannot be opened: %s. Has it ended?", process,
         strerror(errno));
  }
  return opened;
}

}  // namespace

SharedPages share(void* address) {
  auto& table = tables();
  std::unique_lock lock(table.mutex);
  const auto found = entry_containing(table.device, number(address));
  if (found == table.device.end() || number(address) >= found->first + found->second.size_bytes) {
    fail(kInvalidParam, "%p is not device memory.", address);
  }
  Allocation& allocation = found->second;
  if (allocation.physical == nullptr) {
    // Private pages become pages of the shared file. The caller has synchronized: nothing writes meanwhile.
    auto& file = physical_file();
    auto physical = std::make_unique<PhysicalMemory>(PhysicalMemory{.device = allocation.device,
                                                                    .file = file.descriptor(),
                                                                    .offset = file.grow(allocation.size_bytes),
                                                                    .size_bytes = allocation.size_bytes,
                                                                    .mappings = 1});
    void* start = reinterpret_cast<void*>(found->first);
    const auto* content = static_cast<const char*>(host_address(start));
    for (size_t done = 0; done < allocation.size_bytes;) {
      const ssize_t written = pwrite(physical->file, content + done, allocation.size_bytes - done,
                                     static_cast<off_t>(physical->offset + done));
      if (written <= 0) fail(ACL_ERROR_RT_IPC_ERROR, "Device memory cannot be shared: %s.", strerror(errno));
      done += static_cast<size_t>(written);
    }
    back_with_file(start, allocation.size_bytes, physical->file, physical->offset);
    table.physical.insert(physical.get());
    allocation.physical = physical.release();
  }
  const size_t inside = number(address) - found->first;
  return {.process = getpid(),
          .file = allocation.physical->file,
          .offset = allocation.physical->offset + inside,
          .size_bytes = allocation.size_bytes - inside,
          .device = allocation.device->id()};
}

void* map_shared(Device& device, const SharedPages& pages) {
  const OpenFile file(open_file_of(pages.process, pages.file));  // the mapping keeps the pages
  struct stat status {};
  if (fstat(file.get(), &status) != 0 || pages.offset > static_cast<size_t>(status.st_size) ||
      pages.size_bytes > static_cast<size_t>(status.st_size) - pages.offset) {
    fail(kInvalidParam, "the key names %zu bytes at offset %zu, which process %d does not share.", pages.size_bytes,
         pages.offset, pages.process);
  }
  const size_t lead = pages.offset % kPageBytes;
  const size_t size_bytes = size_of_range(pages.size_bytes + lead, kPageBytes);
  Reservation addresses(size_bytes, kHugePageBytes);
  back_with_file(addresses.get(), size_bytes, file.get(), pages.offset - lead);
  auto& table = tables();
  std::lock_guard lock(table.mutex);
  table.device[number(addresses.get())] = {.size_bytes = size_bytes, .device = &device, .origin = Origin::kShared};
  return static_cast<char*>(addresses.keep()) + lead;
}

void unmap_shared(void* address) {
  auto& table = tables();
  std::lock_guard lock(table.mutex);
  const auto found = entry_containing(table.device, number(address));
  if (found == table.device.end() || found->second.origin != Origin::kShared ||
      number(address) - found->first >= found->second.size_bytes) {
    fail(kInvalidParam, "%p was not imported.", address);
  }
  void* start = reinterpret_cast<void*>(found->first);
  remove_backing(start, found->second.size_bytes);
  release_addresses(start, found->second.size_bytes);
  table.device.erase(found);
}

}  // namespace emulator
