#include "core/config.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <sstream>

#include "core/errors.h"

namespace emulator {
namespace {

[[noreturn]] void refuse(const char* variable, const std::string& value, const std::string& accepted) {
  fail(ACL_ERROR_INVALID_PARAM, "%s=\"%s\" is not understood. Set it to %s, or unset it.", variable, value.c_str(),
       accepted.c_str());
}

const char* environment(const char* variable) {
  const char* value = std::getenv(variable);
  return value == nullptr || *value == '\0' ? nullptr : value;
}

bool parse_integer(const std::string& text, int64_t& number) {
  char* end = nullptr;
  errno = 0;
  number = std::strtoll(text.c_str(), &end, 10);
  return !text.empty() && *end == '\0' && errno == 0;
}

int64_t read_integer(const char* variable, int64_t fallback, int64_t low, int64_t high) {
  const char* value = environment(variable);
  if (value == nullptr) return fallback;
  int64_t number = 0;
  if (!parse_integer(value, number) || number < low || number > high) {
    refuse(variable, value, "a whole number from " + std::to_string(low) + " to " + std::to_string(high));
  }
  return number;
}

double read_dilation() {
  const char* variable = "ASCEND_EMULATOR_TIME_DILATION";
  const char* value = environment(variable);
  if (value == nullptr) return 1;
  char* end = nullptr;
  const double factor = std::strtod(value, &end);
  if (*end != '\0' || !(factor >= 0.1 && factor <= 1000)) refuse(variable, value, "a number from 0.1 to 1000");
  return factor;
}

// CANN's rule for ASCEND_RT_VISIBLE_DEVICES: the list ends before the first entry that is not a chip of the machine.
std::vector<int> read_visible_chips(int chip_count) {
  std::vector<int> chips;
  const char* value = std::getenv("ASCEND_RT_VISIBLE_DEVICES");
  if (value == nullptr) {
    for (int i = 0; i < chip_count; ++i) chips.push_back(i);
    return chips;
  }
  std::istringstream entries(value);
  std::string entry;
  while (std::getline(entries, entry, ',')) {
    int64_t chip = 0;
    if (!parse_integer(entry, chip) || chip < 0 || chip >= chip_count) break;
    if (std::find(chips.begin(), chips.end(), chip) != chips.end()) {
      refuse("ASCEND_RT_VISIBLE_DEVICES", value, "a list without repeats, such as 0,1");
    }
    chips.push_back(static_cast<int>(chip));
  }
  return chips;
}

ClockMode read_clock() {
  const char* value = environment("ASCEND_EMULATOR_CLOCK");
  if (value == nullptr) return ClockMode::kFunctional;
  const std::string name = value;
  if (name == "functional") return ClockMode::kFunctional;
  if (name == "skip") return ClockMode::kSkip;
  if (name == "timing") return ClockMode::kTiming;
  if (name == "both") return ClockMode::kBoth;
  refuse("ASCEND_EMULATOR_CLOCK", name, "functional, skip, timing or both");
}

Config read() {
  Config result;
  if (const char* chip = environment("ASCEND_EMULATOR_CHIP")) result.chip = chip;
  result.chip_count = static_cast<int>(read_integer("ASCEND_EMULATOR_COUNT", result.chip_count, 1, 64));
  result.memory_bytes = read_integer("ASCEND_EMULATOR_MEMORY_BYTES", 0, 1 << 20, int64_t{1} << 42);
  result.visible_chips = read_visible_chips(result.chip_count);
  if (const char* path = environment("ASCEND_EMULATOR_STATS")) result.stats_path = path;
  if (const char* faults = environment("ASCEND_EMULATOR_FAULTS")) result.faults_path = faults;
  result.protect_memory = read_integer("ASCEND_EMULATOR_PROTECT_MEMORY", 0, 0, 1) != 0;
  result.stream_slots = read_integer("ASCEND_EMULATOR_STREAM_SLOTS", result.stream_slots, 1, 1 << 24);
  result.clock = read_clock();
  result.time_dilation = read_dilation();
  return result;
}

}  // namespace

const Config& config() {
  static const Config& instance = *new Config(read());  // never destroyed: stream threads outlive static destructors
  return instance;
}

}  // namespace emulator
