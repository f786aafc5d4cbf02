// CANN's opaque attribute collection.
#pragma once

#include <acl/acl_op.h>

#include <string>
#include <vector>

struct aclopAttr {
  std::vector<std::string> names;
};

namespace emulator {

// As for the descriptors of core/descriptors.h.
bool is_live(const aclopAttr* attributes);

}  // namespace emulator
