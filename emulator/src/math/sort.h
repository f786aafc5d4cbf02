// Stable sorting of rows of floats.
#pragma once

#include <cstdint>

namespace emulator {

// Sorts each row [columns] of `values` in place and writes where its elements were. Equal elements keep their order, zeros
// of both signs are equal, and NaN is the largest, as in PyTorch. A row has fewer than 2^32 elements.
void sort_rows(float* values, int64_t* indices, int64_t rows, int64_t columns, bool descending);

}  // namespace emulator
