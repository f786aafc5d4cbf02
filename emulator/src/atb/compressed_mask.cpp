#include "atb/compressed_mask.h"

#include <algorithm>

#include "math/nz.h"

namespace emulator {

void check_compressed_mask(const ::atb::TensorDesc& mask) {
  require(mask.dtype == ACL_FLOAT16, ::atb::ERROR_INVALID_TENSOR_DTYPE,
          "MASK_TYPE_NORM_COMPRESS needs a float16 mask.");
  const auto& dims = mask.shape.dims;
  const uint64_t rank = mask.shape.dimNum;
  if (mask.format == ACL_FORMAT_FRACTAL_NZ) {
    const bool fits = rank == 4 && dims[0] == 1 && dims[1] == kCompressedMaskSize / 16 &&
                      dims[2] == kCompressedMaskSize && dims[3] == 16;
    if (!fits) {
      reject(::atb::ERROR_INVALID_TENSOR_DIM, "a compressed FRACTAL_NZ mask must be [1, 128, 2048, 16], not %s.",
             describe(mask).c_str());
    }
    return;
  }
  bool fits = rank >= 2 && rank <= 4 && dims[rank - 1] == kCompressedMaskSize && dims[rank - 2] == kCompressedMaskSize;
  for (uint64_t i = 0; fits && i + 2 < rank; ++i) fits = dims[i] == 1;
  if (!fits) {
    reject(::atb::ERROR_INVALID_TENSOR_DIM, "a compressed ND mask must be [2048, 2048], not %s.",
           describe(mask).c_str());
  }
}

void append_causal_tiles(const Sequence& sequence, Stride stride, int64_t block_size, int64_t mask_row_stride,
                         std::vector<Sequence>* tiles) {
  constexpr int64_t kTileRows = 128;
  const int64_t prefix = std::max<int64_t>(sequence.kv_length - sequence.query_length, 0);
  for (int64_t row = 0; row < sequence.query_length; row += kTileRows) {
    const int64_t first = prefix + row;  // position of the tile's first query
    Sequence tile = sequence;
    tile.query_length = std::min(kTileRows, sequence.query_length - row);
    tile.kv_length = std::min(sequence.kv_length, round_up(first + tile.query_length, block_size));
    tile.query_offset += row * stride.query_row;
    tile.output_offset += row * stride.output_row;
    tile.mask_key_begin = std::min(first, tile.kv_length) / block_size * block_size;
    tile.mask_offset = (first - tile.mask_key_begin) * mask_row_stride;
    tiles->push_back(tile);
  }
}

}  // namespace emulator
