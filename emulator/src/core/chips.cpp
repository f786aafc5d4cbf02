#include "core/chips.h"

#include <string>

#include "core/config.h"
#include "core/errors.h"

namespace emulator {
namespace {

constexpr Chip kChips[] = {
#include "chip_table.inc"
};

const Chip& find(const std::string& name) {
  std::string known;
  for (const auto& candidate : kChips) {
    if (name == candidate.name) return candidate;
    known += std::string(known.empty() ? "" : ", ") + candidate.name;
  }
  fail(ACL_ERROR_INVALID_PARAM, "ASCEND_EMULATOR_CHIP=\"%s\" is not a known chip. Set it to one of: %s.", name.c_str(),
       known.c_str());
}

}  // namespace

const Chip& chip() {
  static const Chip& instance = find(config().chip);
  return instance;
}

}  // namespace emulator
