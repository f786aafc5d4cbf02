// Where heads and tokens lie in the tensors that attention operators take, by CANN's layout names.
#pragma once

#include <string_view>

#include "aclnn/operator.h"
#include "math/attention.h"

namespace emulator::aclnn {

// Whether an optional tensor was given.
inline bool has(const TensorView* tensor) { return tensor != nullptr && tensor->defined() && tensor->numel() > 0; }

// Axes of a query, key, value or output in elements. In TND and NTD the sequences of the batch follow one another: `tokens`
// is their total and batch is 1.
struct HeadLayout {
  int64_t batch = 1;
  int64_t tokens = 0;
  int64_t heads = 0;
  int64_t dim = 0;
  int64_t batch_stride = 0;
  int64_t token_stride = 0;
  int64_t head_stride = 0;
};

// Layouts BSH, SBH, BSND, BNSD, NBSD, TND, NTD. `heads` is needed by BSH and checked against the tensor otherwise.
HeadLayout head_layout(std::string_view layout, const TensorView& tensor, const char* name, int64_t heads);

// "BNSD_BSND" is queries in BNSD and output in BSND; "BSH" is both.
std::string_view query_layout(std::string_view input_layout);
std::string_view output_layout(std::string_view input_layout);
bool is_packed(std::string_view layout);  // TND, NTD

KeyValue contiguous_keys(const HeadLayout& layout, const TensorView& tensor);

// A paged cache: [blocks, block_size, heads * dim], [blocks, heads, block_size, dim] or, FRACTAL_NZ written out,
// [blocks, heads, dim / 16, block_size, 16].
struct PagedLayout {
  int64_t blocks = 0;
  int64_t block_size = 0;
  KeyValue keys;
};
PagedLayout paged_layout(const TensorView& cache, const char* name, int64_t heads);

}  // namespace emulator::aclnn
