// Launches by operator name. Names are string literals, so a name's address identifies it within one library.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <unordered_map>

namespace emulator {

class LaunchCounts {
 public:
  void add(const char* name, uint64_t count = 1) {
    if (name != last_name_) {
      last_name_ = name;
      last_count_ = &counts_[name];
    }
    *last_count_ += count;
  }

  // The same operator may have one literal in each library, hence the merge by text.
  void merge_into(std::map<std::string, uint64_t>& totals, uint64_t times = 1) const {
    for (const auto& [name, count] : counts_) totals[name] += count * times;
  }

  void clear() { *this = LaunchCounts(); }

  LaunchCounts() = default;
  LaunchCounts(const LaunchCounts& other) : counts_(other.counts_) {}
  LaunchCounts& operator=(const LaunchCounts& other) {
    counts_ = other.counts_;
    last_name_ = nullptr;
    last_count_ = nullptr;
    return *this;
  }

 private:
  std::unordered_map<const char*, uint64_t> counts_;
  const char* last_name_ = nullptr;  // decode loops launch the same operator in runs
  uint64_t* last_count_ = nullptr;
};

}  // namespace emulator
