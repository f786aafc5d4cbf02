// Working memory of one thread, kept between calls: allocating per launch would cost more than a small product.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emulator {

// At least `count` floats, 64-byte aligned, contents undefined. Each slot is one buffer per thread; a new call for the same slot
// invalidates the previous one, so a routine owns its slots and never calls itself while it uses them.
enum class ScratchSlot { kGemmRows, kGemmPanel, kGemmResult, kAttentionQuery, kAttentionKeys, kAttentionScores,
                         kAttentionOutput, kRow, kRowTwo, kCount };
float* scratch(ScratchSlot slot, int64_t count);

}  // namespace emulator
