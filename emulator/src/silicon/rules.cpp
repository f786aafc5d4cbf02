#include "silicon/rules.h"

#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>

#include "core/chips.h"
#include "core/errors.h"

namespace emulator {
namespace {

struct Facts {
  const char* name;
  uint32_t products;
  bool enforced;
};

constexpr Facts kRules[] = {
#define SILICON_RULE(id, name, products, enforced) {name, products, enforced},
#include "silicon_rules.inc"
#undef SILICON_RULE
};
constexpr size_t kCount = std::size(kRules);
static_assert(kCount <= 64, "the rules are bits of one word");

const char* name_of(Rule rule) { return kRules[static_cast<size_t>(rule)].name; }

uint64_t bit_of(const std::string& name) {
  std::string names;
  for (size_t i = 0; i < kCount; ++i) {
    if (name == kRules[i].name) return uint64_t{1} << i;
    names += std::string(", ") + kRules[i].name;
  }
  fail(ACL_ERROR_INVALID_PARAM,
       "ASCEND_EMULATOR_RULES names \"%s\", which is no rule. Give some of all, none%s, each with - before it to switch it off.",
       name.c_str(), names.c_str());
}

bool is_on(const char* variable) {
  const char* value = std::getenv(variable);
  if (value == nullptr || *value == '\0') return false;
  const std::string text = value;
  if (text == "1") return true;
  if (text == "0") return false;
  fail(ACL_ERROR_INVALID_PARAM, "%s=\"%s\" is not understood. Set it to 1 or 0, or unset it.", variable, value);
}

uint64_t read_rules() {
  uint64_t enforced = 0, of_chip = 0;
  for (size_t i = 0; i < kCount; ++i) {
    if (kRules[i].products & chip().product) of_chip |= uint64_t{1} << i;
    if (kRules[i].enforced) enforced |= uint64_t{1} << i;
  }
  if (is_on("ASCEND_EMULATOR_LENIENT")) enforced = 0;
  const char* value = std::getenv("ASCEND_EMULATOR_RULES");
  std::istringstream entries(value == nullptr ? "" : value);
  std::string entry;
  while (std::getline(entries, entry, ',')) {
    const bool off = entry.starts_with('-');
    const std::string name = off ? entry.substr(1) : entry;
    if (name.empty()) continue;
    const uint64_t bits = name == "all" || name == "none" ? ~uint64_t{0} : bit_of(name);
    enforced = off || name == "none" ? enforced & ~bits : enforced | bits;
  }
  return enforced & of_chip;
}

std::string format_message(const char* format, va_list arguments) {
  char buffer[1024];
  vsnprintf(buffer, sizeof buffer, format, arguments);
  return buffer;
}

}  // namespace

bool enforces(Rule rule) {
  static const uint64_t enforced = read_rules();  // a throw leaves it unread: the next launch complains again
  return enforced >> static_cast<unsigned>(rule) & 1;
}

void refuse_by(Rule rule, aclError code, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const std::string message = format_message(format, arguments);
  va_end(arguments);
  fail(code, "%s (%s, rule %s of docs/strict.md)", message.c_str(), chip().soc_version, name_of(rule));
}

void tell(Rule rule, const char* operator_name, const char* format, ...) {
  static std::atomic<uint64_t> told{0};
  const uint64_t bit = uint64_t{1} << static_cast<unsigned>(rule);
  if (told.fetch_or(bit, std::memory_order_relaxed) & bit) return;
  va_list arguments;
  va_start(arguments, format);
  const std::string message = format_message(format, arguments);
  va_end(arguments);
  fprintf(stderr, "ascend-emulator: %s: %s (%s, rule %s of docs/strict.md; said once)\n", operator_name, message.c_str(),
          chip().soc_version, name_of(rule));
}

}  // namespace emulator
