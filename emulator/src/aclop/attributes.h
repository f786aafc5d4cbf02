// CANN's opaque attribute collection.
#pragma once

#include <acl/acl_op.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

struct aclopAttr {
  std::vector<std::string> names;
  std::map<std::string, int64_t> whole_numbers;  // whole numbers and bools: what the emulated operators have
};

namespace emulator {

// As for the descriptors of core/descriptors.h.
bool is_live(const aclopAttr* attributes);

}  // namespace emulator
