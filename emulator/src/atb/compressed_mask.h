// The compressed causal mask of Atlas inference products: one fixed 2048 x 2048 mask for sequences of any length.
#pragma once

#include <vector>

#include "atb/operation.h"
#include "math/attention.h"

namespace emulator {

inline constexpr int64_t kCompressedMaskSize = 2048;

// float16, [2048, 2048] (or with leading ones) in ND, or [1, 128, 2048, 16] in FRACTAL_NZ.
void check_compressed_mask(const ::atb::TensorDesc& mask);

struct Stride {
  int64_t query_row;  // elements from one query row to the next
  int64_t output_row;
};

// Splits a sequence into tiles of 128 query rows that see the mask as the kernels do: keys before the tile's diagonal
// block are all seen, those of the diagonal blocks get the mask's content, later ones are never visited. The mask
// depends on the distance to the diagonal only, so every tile reads its upper left corner (shift-invariant read;
// kernels paged_attention_decoder_mask.cce and unpad_flash_attention_common.h). A mask with wrong content therefore
// gives wrong results. `mask_row_stride` is in elements; keys per block: `block_size`.
void append_causal_tiles(const Sequence& sequence, Stride stride, int64_t block_size, int64_t mask_row_stride,
                         std::vector<Sequence>* tiles);

}  // namespace emulator
