#include "core/faults.h"

#include <acl/error_codes/rt_error_codes.h>

#include <array>
#include <map>

#include "core/config.h"
#include "core/errors.h"
#include "core/json.h"

namespace emulator {
namespace {

[[noreturn]] void refuse(const std::string& problem) {
  fail(ACL_ERROR_INVALID_PARAM, "ASCEND_EMULATOR_FAULTS=\"%s\": %s", config().faults_path.c_str(), problem.c_str());
}

constexpr std::array<const char*, static_cast<size_t>(Direction::kCount)> kDirections = {
    "host_to_device", "device_to_host", "device_to_device", "host_to_host"};

double number_of(const Json& json, const char* key, double fallback, double low, double high, size_t index) {
  const Json* value = json.find(key);
  if (value == nullptr) return fallback;
  if (!value->is_number() || value->number() < low || value->number() > high) {
    refuse("fault " + std::to_string(index + 1) + ": \"" + key + "\" must be a number from " + std::to_string(low) +
           " to " + std::to_string(high) + ".");
  }
  return value->number();
}

void refuse_unknown_keys(const Json& json, size_t index) {
  static const std::array<const char*, 10> kKnown = {"kind", "chip",   "operator", "direction", "code",
                                                     "nth",  "factor", "seconds",  "times",     "rate"};
  for (const auto& [key, value] : json.members()) {
    bool known = false;
    for (const char* name : kKnown) known = known || key == name;
    if (!known) refuse("fault " + std::to_string(index + 1) + ": \"" + key + "\" is not a property of a fault.");
  }
}

}  // namespace

Faults::Fault Faults::parse_fault(const Json& json, size_t index) {
  static const std::map<std::string, Kind> kKinds = {
      {"allocation", Kind::kAllocation},         {"launch", Kind::kLaunch},
      {"chip_lost", Kind::kChipLost},            {"chip_busy", Kind::kChipBusy},
      {"slow_chip", Kind::kSlowChip},            {"corrupted_copy", Kind::kCorruptedCopy},
      {"collective_stall", Kind::kCollectiveStall}};
  const std::string where = "fault " + std::to_string(index + 1);
  const Json* kind = json.find("kind");
  if (kind == nullptr || kKinds.count(kind->string()) == 0) {
    std::string known;
    for (const auto& [name, value] : kKinds) known += (known.empty() ? "" : ", ") + name;
    refuse(where + ": \"kind\" must be one of " + known + ".");
  }
  refuse_unknown_keys(json, index);
  Fault fault{.kind = kKinds.at(kind->string())};
  fault.chip = static_cast<int>(number_of(json, "chip", -1, 0, 63, index));
  fault.nth = static_cast<uint64_t>(number_of(json, "nth", 0, 1, 1e15, index));
  fault.times = static_cast<uint64_t>(number_of(json, "times", 1, 0, 1e15, index));
  fault.rate = number_of(json, "rate", 0, 0, 1, index);
  fault.factor = number_of(json, "factor", 1, 1, 1e6, index);
  fault.stall_s = number_of(json, "seconds", 3600, 0, 1e6, index);
  fault.code = static_cast<aclError>(number_of(json, "code", kAicoreException, 507000, 507999, index));
  if (const Json* name = json.find("operator")) fault.operator_name = name->string();
  if (const Json* direction = json.find("direction")) {
    for (size_t i = 0; i < kDirections.size(); ++i) {
      if (direction->string() == kDirections[i]) fault.direction = static_cast<int>(i);
    }
    if (fault.direction < 0) refuse(where + ": \"direction\" \"" + direction->string() + "\" is unknown.");
  }
  const bool counts = fault.kind != Kind::kChipBusy && fault.kind != Kind::kSlowChip;
  if (counts && (fault.nth == 0) == (fault.rate == 0)) refuse(where + ": give either \"nth\" or \"rate\".");
  return fault;
}

Faults::Faults(const std::string& path) {
  if (path.empty()) return;
  const Json document = Json::parse_file(path);
  const Json* list = document.find("faults");
  if (list == nullptr || !list->is_array()) refuse("the document must be {\"seed\": ..., \"faults\": [...]}.");
  const Json* seed = document.find("seed");
  random_.seed(seed == nullptr ? 0 : static_cast<uint64_t>(seed->number()));
  for (size_t i = 0; i < list->items().size(); ++i) faults_.push_back(parse_fault(list->items()[i], i));
}

bool Faults::strikes(Fault& fault) {
  ++fault.seen;
  if (fault.rate > 0) return std::uniform_real_distribution<>(0, 1)(random_) < fault.rate;
  return fault.seen >= fault.nth && (fault.times == 0 || fault.seen < fault.nth + fault.times);
}

void Faults::check_set_device(int chip) {
  for (const auto& fault : faults_) {
    if (fault.kind == Kind::kChipBusy && (fault.chip < 0 || fault.chip == chip)) {
      // dcmi's code for an occupied resource, as npu-smi prints it; older drivers answer -8005 to this and to much else.
      fail(ACL_ERROR_RT_DEV_SETUP_ERROR, "chip %d is busy: the driver answers -8020 (held by another container?).",
           chip);
    }
  }
}

void Faults::check_allocation(int chip) {
  if (!any()) return;
  std::lock_guard lock(mutex_);
  for (auto& fault : faults_) {
    if (fault.kind != Kind::kAllocation || (fault.chip >= 0 && fault.chip != chip) || !strikes(fault)) continue;
    fail(kMemoryAllocation, "device memory of chip %d cannot be allocated (fault on demand, allocation %lu).", chip,
         static_cast<unsigned long>(fault.seen));
  }
}

void Faults::check_launch(const Task& task, int chip) {
  std::lock_guard lock(mutex_);
  for (auto& fault : faults_) {
    if (fault.chip >= 0 && fault.chip != chip) continue;
    if (fault.kind == Kind::kChipLost && (fault.tripped || strikes(fault))) {
      fault.tripped = true;
      fail(ACL_ERROR_RT_LOST_HEARTBEAT, "chip %d stopped answering (heartbeat lost).", chip);
    }
    if (fault.kind != Kind::kLaunch) continue;
    if (!fault.operator_name.empty() && fault.operator_name != task.name()) continue;
    if (!strikes(fault)) continue;
    const char* what = fault.code == kAicoreTimeout     ? "the AI core timed out"
                       : fault.code == kAicoreException ? "the AI core raised an exception"
                       : fault.code == kAicpuException  ? "the AI CPU raised an exception"
                                                        : "the launch failed";
    fail(fault.code, "%s on chip %d (fault on demand, launch %lu).", what, chip,
         static_cast<unsigned long>(fault.seen));
  }
}

double Faults::slow_factor(int chip) const {
  double factor = 1;
  for (const auto& fault : faults_) {
    if (fault.kind == Kind::kSlowChip && (fault.chip < 0 || fault.chip == chip)) factor *= fault.factor;
  }
  return factor;
}

void Faults::corrupt_copy(Direction direction, int chip, void* data, size_t size_bytes) {
  if (!any() || size_bytes == 0) return;
  std::lock_guard lock(mutex_);
  for (auto& fault : faults_) {
    if (fault.kind != Kind::kCorruptedCopy || (fault.chip >= 0 && fault.chip != chip)) continue;
    if (fault.direction >= 0 && fault.direction != static_cast<int>(direction)) continue;
    if (!strikes(fault)) continue;
    const uint64_t bit = random_() % (size_bytes * 8);
    static_cast<unsigned char*>(data)[bit / 8] ^= static_cast<unsigned char>(1u << (bit % 8));
  }
}

double Faults::collective_stall_s(int chip) {
  if (!any()) return 0;
  std::lock_guard lock(mutex_);
  for (auto& fault : faults_) {
    if (fault.kind != Kind::kCollectiveStall || (fault.chip >= 0 && fault.chip != chip)) continue;
    if (strikes(fault)) return fault.stall_s;
  }
  return 0;
}

Faults& faults() {
  static auto& instance = *new Faults(config().faults_path);
  return instance;
}

}  // namespace emulator
