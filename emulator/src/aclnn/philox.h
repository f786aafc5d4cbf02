// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): random bits as a pure function
// of (seed, offset, index), so that a launch gives the same numbers whenever and in whatever order it runs.
#pragma once

#include <array>
#include <cstdint>

namespace emulator::aclnn {

class Philox {
 public:
  // `offset` is what torch_npu's generator hands out and advances at every call.
  Philox(uint64_t seed, uint64_t offset) : seed_(seed), offset_(offset) {}

  // Four words for each block. Offset and block are halves of the 128-bit counter, so no two calls overlap.
  std::array<uint32_t, 4> block(uint64_t index) const {
    uint32_t c[4] = {low(index), high(index), low(offset_), high(offset_)};
    uint32_t key[2] = {low(seed_), high(seed_)};
    for (int round = 0; round < 10; ++round) {
      const uint64_t product_0 = uint64_t{0xD2511F53} * c[0];
      const uint64_t product_1 = uint64_t{0xCD9E8D57} * c[2];
      const uint32_t next[4] = {high(product_1) ^ c[1] ^ key[0], low(product_1), high(product_0) ^ c[3] ^ key[1],
                                low(product_0)};
      for (int i = 0; i < 4; ++i) c[i] = next[i];
      key[0] += 0x9E3779B9;  // the golden ratio and sqrt(3) - 1, as in the paper
      key[1] += 0xBB67AE85;
    }
    return {c[0], c[1], c[2], c[3]};
  }

  uint32_t word(uint64_t index) const { return block(index / 4)[index % 4]; }
  uint64_t wide(uint64_t index) const {
    const auto words = block(index / 2);
    const size_t first = index % 2 * 2;
    return uint64_t{words[first + 1]} << 32 | words[first];
  }

 private:
  static uint32_t low(uint64_t value) { return static_cast<uint32_t>(value); }
  static uint32_t high(uint64_t value) { return static_cast<uint32_t>(value >> 32); }

  uint64_t seed_;
  uint64_t offset_;
};

// The top `bits` bits as a number in [0, 1) that a type with that many significant bits holds exactly: rounding in the
// destination can then never reach 1.
inline double unit_interval(uint64_t word, int bits) {
  return static_cast<double>(word >> (64 - bits)) / static_cast<double>(uint64_t{1} << bits);
}

}  // namespace emulator::aclnn
