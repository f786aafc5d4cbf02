#include "core/forms.h"

#include <cstdlib>
#include <cstring>
#include <mutex>

namespace emulator {
namespace {

struct Table {
  std::mutex mutex;
  std::map<std::string, uint64_t> counts;
};

Table& table() {
  static Table& instance = *new Table;  // threads outlive static destructors
  return instance;
}

}  // namespace

bool records_forms() {
  static const bool wanted = [] {
    const char* value = std::getenv("ASCEND_EMULATOR_FORMS");
    return value != nullptr && std::strcmp(value, "1") == 0;
  }();
  return wanted;
}

void record_form(const std::string& form) {
  const std::lock_guard lock(table().mutex);
  ++table().counts[form];
}

std::map<std::string, uint64_t> recorded_forms() {
  const std::lock_guard lock(table().mutex);
  return table().counts;
}

void clear_forms() {
  const std::lock_guard lock(table().mutex);
  table().counts.clear();
}

std::string form_of(aclDataType dtype, aclFormat format, int rank, bool is_view) {
  std::string text = dtype_name(dtype);
  if (format == ACL_FORMAT_FRACTAL_NZ) text += ":NZ";
  return text + "[" + std::to_string(rank) + "]" + (is_view ? "v" : "");
}

std::string form_of(const TensorView& tensor) {
  return form_of(tensor.dtype, tensor.format, tensor.rank(), !tensor.is_fractal_nz() && !tensor.is_contiguous());
}

}  // namespace emulator
