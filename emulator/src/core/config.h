// Settings of the emulator: environment variables, read once, checked, and named in every complaint.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace emulator {

enum class ClockMode {
  kFunctional,  // compute; no model of time
  kSkip,        // no compute, no model of time: what remains is the host's work
  kTiming,      // no compute; every launch takes its modelled time; device memory is not backed
  kBoth,        // compute and modelled time
};

struct Config {
  std::string chip = "310P3";         // ASCEND_EMULATOR_CHIP
  int chip_count = 4;                 // ASCEND_EMULATOR_COUNT: chips in the emulated machine
  int64_t memory_bytes = 0;           // ASCEND_EMULATOR_MEMORY_BYTES: of every chip; 0 is the chip's own
  std::vector<int> visible_chips;     // ASCEND_RT_VISIBLE_DEVICES: logical device -> chip of the machine
  std::string stats_path;             // ASCEND_EMULATOR_STATS: file or folder for the counters, "%p" is the process id
  std::string faults_path;            // ASCEND_EMULATOR_FAULTS: a JSON file; see core/faults.h
  bool protect_memory = false;        // ASCEND_EMULATOR_PROTECT_MEMORY: host access to device memory faults
  ClockMode clock = ClockMode::kFunctional;  // ASCEND_EMULATOR_CLOCK
  int64_t stream_slots = 1792;        // ASCEND_EMULATOR_STREAM_SLOTS: tasks a stream holds
  double time_dilation = 1;           // ASCEND_EMULATOR_TIME_DILATION: wall seconds of a modelled second; core/clock.h
};

// Throws Failure, naming the variable, its value and what is accepted, on every call until the environment is right.
const Config& config();

}  // namespace emulator
