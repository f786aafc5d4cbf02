#include "core/forms.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <set>

namespace emulator {
namespace {

const char* path() {
  static const char* const value = [] {
    const char* set = std::getenv("ASCEND_EMULATOR_FORMS");
    return set == nullptr || *set == '\0' ? nullptr : set;
  }();
  return value;
}

struct Table {
  std::mutex mutex;
  std::set<std::string> known;
};

Table& table() {
  static Table& instance = *new Table;  // threads outlive static destructors
  return instance;
}

// One write, so that lines of several processes do not mix.
void append(const std::string& line) {
  const int file = open(path(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (file < 0 || write(file, line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
    std::fprintf(stderr, "ascend-emulator: ASCEND_EMULATOR_FORMS: \"%s\" cannot be written.\n", path());
  }
  if (file >= 0) close(file);
}

}  // namespace

bool records_forms() { return path() != nullptr; }

void record_form(const std::string& form) {
  const std::lock_guard lock(table().mutex);
  if (table().known.insert(form).second) append(form + "\n");
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
