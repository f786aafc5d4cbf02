#include "math/sort.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "math/parallel.h"

namespace emulator {

namespace {

constexpr int64_t kRadixElements = 512;      // fewer are sorted faster by comparison
constexpr int64_t kParallelElements = 4096;  // take longer than waking a thread
constexpr int kDigitBits = 11;               // three digits make a key
constexpr int kDigits = 3;
constexpr uint32_t kDigitMask = (1u << kDigitBits) - 1;

// An element's key, which orders as the element does, above the place that it has in its row.
using Entry = uint64_t;

uint32_t key_of(float value) {
  if (std::isnan(value)) return 0xffffffffu;
  value += 0.0f;  // -0 becomes +0
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

// Least significant digit first: each pass keeps the order of equal digits, so places need not be compared.
void radix_sort(std::vector<Entry>& entries, std::vector<Entry>& other) {
  std::array<std::array<uint32_t, kDigitMask + 1>, kDigits> starts{};
  const auto digit_of = [](Entry entry, int digit) {
    return static_cast<uint32_t>(entry >> (32 + digit * kDigitBits)) & kDigitMask;
  };
  for (Entry entry : entries) {
    for (int digit = 0; digit < kDigits; ++digit) ++starts[digit][digit_of(entry, digit)];
  }
  for (int digit = 0; digit < kDigits; ++digit) {
    uint32_t start = 0;
    for (uint32_t& count : starts[digit]) start += std::exchange(count, start);
    for (Entry entry : entries) other[starts[digit][digit_of(entry, digit)]++] = entry;
    entries.swap(other);
  }
}

}  // namespace

void sort_rows(float* values, int64_t* indices, int64_t rows, int64_t columns, bool descending) {
  if (rows == 0 || columns == 0) return;
  parallel_for(0, rows, kParallelElements / columns + 1, [&](int64_t from, int64_t to) {
    std::vector<Entry> entries(columns), other(columns);
    std::vector<float> row(columns);
    for (int64_t r = from; r < to; ++r) {
      float* data = values + r * columns;
      std::copy_n(data, columns, row.data());
      for (int64_t c = 0; c < columns; ++c) {
        const uint32_t key = key_of(row[c]);
        entries[c] = static_cast<Entry>(descending ? ~key : key) << 32 | static_cast<uint32_t>(c);
      }
      columns < kRadixElements ? std::sort(entries.begin(), entries.end()) : radix_sort(entries, other);
      for (int64_t c = 0; c < columns; ++c) {
        const int64_t place = static_cast<uint32_t>(entries[c]);
        data[c] = row[place];
        indices[r * columns + c] = place;
      }
    }
  });
}

}  // namespace emulator
