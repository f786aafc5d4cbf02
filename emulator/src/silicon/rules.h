// What the silicon does beyond the documents (rules.toml), by name: operators ask, before they do the nicer thing.
//
// A rule is enforced on the chips that it names unless it is switched off: ASCEND_EMULATOR_LENIENT=1 switches all off,
// ASCEND_EMULATOR_RULES=NAME,-NAME,all,none one after another from left to right. docs/strict.md has the rules.
#pragma once

#include <acl/acl.h>

#include <cstdint>

namespace emulator {

enum class Rule : uint8_t {
#define SILICON_RULE(id, name, products, enforced) id,
#include "silicon_rules.inc"
#undef SILICON_RULE
};

// Whether the emulated chip has the rule and it is on. Throws Failure if a variable names an unknown rule.
bool enforces(Rule rule);

// Throws Failure(code) with the message and the rule's name, so that a reader finds docs/strict.md.
[[noreturn]] void refuse_by(Rule rule, aclError code, const char* format, ...) __attribute__((format(printf, 3, 4)));

// For rules that change values without an error: says so on stderr, once a rule and process.
void tell(Rule rule, const char* operator_name, const char* format, ...) __attribute__((format(printf, 3, 4)));

}  // namespace emulator
