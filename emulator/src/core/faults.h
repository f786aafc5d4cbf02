// Failures on demand: what goes wrong with hardware, repeatable on a laptop.
//
// ASCEND_EMULATOR_FAULTS names a JSON file: {"seed": 7, "faults": [{"kind": ...}, ...]}, with the kinds
//   allocation        the nth allocation of device memory fails with 207001
//   launch            the nth launch fails on the device with "code": 507014, 507015 or 507018; of "operator" if given
//   chip_lost         at the nth launch the chip stops answering: 507010, and so does every later call on it
//   chip_busy         aclrtSetDevice fails with 507033
//   slow_chip         every launch takes "factor" times as long
//   corrupted_copy    the nth copy flips one bit of its destination; of "direction" if given (as in the counters)
//   collective_stall  the nth collective of the process joins only after "seconds"
// Every kind takes "chip" (position in the machine; all chips without it); those that count take "nth" (from 1), and
// "times" (1; 0 is for ever), or "rate" (0 to 1) instead: drawn from the seed, so the same run fails the same way.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "core/stats.h"
#include "core/task.h"

namespace emulator {

class Faults {
 public:
  explicit Faults(const std::string& path);  // empty: nothing fails

  bool any() const { return !faults_.empty(); }

  void check_set_device(int chip);                           // throws Failure(507033)
  void check_allocation(int chip);                           // throws Failure(207001)
  void check_launch(const Task& task, int chip);             // throws Failure
  double slow_factor(int chip) const;                        // 1 for a healthy chip
  void corrupt_copy(Direction direction, int chip, void* data, size_t size_bytes);
  double collective_stall_s(int chip);                       // 0 for none; HCCL asks before each collective

 private:
  enum class Kind { kAllocation, kLaunch, kChipLost, kChipBusy, kSlowChip, kCorruptedCopy, kCollectiveStall };

  struct Fault {
    Kind kind;
    int chip = -1;            // -1: every chip
    std::string operator_name{};
    int direction = -1;       // -1: every direction
    aclError code = 0;
    double factor = 1;
    double stall_s = 0;
    uint64_t nth = 0;
    uint64_t times = 1;       // 0: for ever
    double rate = 0;
    uint64_t seen = 0;        // what the fault could have struck so far
    bool tripped = false;     // kChipLost
  };

  static Fault parse_fault(const class Json& json, size_t index);
  bool strikes(Fault& fault);

  std::mutex mutex_;
  std::vector<Fault> faults_;
  std::mt19937_64 random_;
};

Faults& faults();

}  // namespace emulator
