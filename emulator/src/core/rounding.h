// Sizes in whole units.
#pragma once

#include <cstddef>

namespace emulator {

// The caller has bounded `value`: what lies within a unit of 2^64 would wrap.
constexpr size_t round_up_to(size_t value, size_t unit) {
  return (value + unit - 1) / unit * unit;
}

}  // namespace emulator
