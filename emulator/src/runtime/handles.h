// The objects behind one kind of handle. A program may pass anything as a handle: what was never handed out, or was
// given back, is refused with CANN's code instead of followed into memory.
#pragma once

#include <acl/acl.h>

#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "core/errors.h"

namespace emulator {

template <typename Object>
class HandleTable {
 public:
  // `code` answers a handle that does not exist; `noun` is what the message calls it: "event".
  HandleTable(aclError code, const char* noun) : code_(code), noun_(noun) {}

  void add(std::shared_ptr<Object> object) {
    std::lock_guard lock(mutex_);
    const void* handle = object.get();
    objects_[handle] = std::move(object);
  }

  std::shared_ptr<Object> find(const void* handle) const {
    std::lock_guard lock(mutex_);
    const auto found = objects_.find(handle);
    if (found == objects_.end()) refuse(handle);
    return found->second;
  }

  // The handle is invalid from now on. The caller's pointer may be the last one: its destructor runs without the lock.
  std::shared_ptr<Object> take(const void* handle) {
    std::lock_guard lock(mutex_);
    auto node = objects_.extract(handle);
    if (node.empty()) refuse(handle);
    return std::move(node.mapped());
  }

  std::vector<std::shared_ptr<Object>> all() const {
    std::lock_guard lock(mutex_);
    std::vector<std::shared_ptr<Object>> result;
    for (const auto& [handle, object] : objects_) result.push_back(object);
    return result;
  }

 private:
  [[noreturn]] void refuse(const void* handle) const {
    if (handle == nullptr) fail(ACL_ERROR_INVALID_PARAM, "the %s must not be null.", noun_);
    fail(code_, "The %s %p does not exist: it was destroyed or never created.", noun_, handle);
  }

  const aclError code_;
  const char* const noun_;
  mutable std::mutex mutex_;
  std::unordered_map<const void*, std::shared_ptr<Object>> objects_;
};

}  // namespace emulator
