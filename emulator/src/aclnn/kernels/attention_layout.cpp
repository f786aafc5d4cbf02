#include "aclnn/kernels/attention_layout.h"

namespace emulator::aclnn {

namespace {

// Position of each axis in the tensor; -1 where the layout has none.
struct Axes {
  std::string_view name;
  int rank, batch, token, head;
};

constexpr Axes kLayouts[] = {
    {"BSH", 3, 0, 1, -1}, {"SBH", 3, 1, 0, -1}, {"BSND", 4, 0, 1, 2}, {"BNSD", 4, 0, 2, 1},
    {"NBSD", 4, 1, 2, 0}, {"TND", 3, -1, 0, 1}, {"NTD", 3, -1, 1, 0},
};

}  // namespace

std::string_view query_layout(std::string_view input_layout) { return input_layout.substr(0, input_layout.find('_')); }

std::string_view output_layout(std::string_view input_layout) {
  const size_t separator = input_layout.find('_');
  return separator == std::string_view::npos ? input_layout : input_layout.substr(separator + 1);
}

bool is_packed(std::string_view layout) { return layout == "TND" || layout == "NTD"; }

HeadLayout head_layout(std::string_view layout, const TensorView& tensor, const char* name, int64_t heads) {
  for (const Axes& axes : kLayouts) {
    if (axes.name != layout) continue;
    require(tensor.rank() == axes.rank, "%s has %d dimensions, but layout %s has %d.", name, tensor.rank(),
            axes.name.data(), axes.rank);
    require(tensor.sizes.back(0) == 1 || tensor.strides.back(0) == 1,
            "%s must be contiguous in its last dimension, but its stride there is %lld.", name,
            static_cast<long long>(tensor.strides.back(0)));
    HeadLayout result;
    result.heads = heads;
    result.tokens = tensor.sizes[axes.token];
    result.token_stride = tensor.strides[axes.token];
    if (axes.batch >= 0) {
      result.batch = tensor.sizes[axes.batch];
      result.batch_stride = tensor.strides[axes.batch];
    }
    if (axes.head < 0) {
      require(heads > 0 && tensor.sizes.back(0) % heads == 0, "the last dimension of %s is %lld, not a multiple of %lld heads.",
              name, static_cast<long long>(tensor.sizes.back(0)), static_cast<long long>(heads));
      result.dim = result.head_stride = tensor.sizes.back(0) / heads;
      return result;
    }
    require(tensor.sizes[axes.head] == heads, "%s has %lld heads in layout %s, but %lld were named.", name,
            static_cast<long long>(tensor.sizes[axes.head]), axes.name.data(), static_cast<long long>(heads));
    result.dim = tensor.sizes.back(0);
    result.head_stride = tensor.strides[axes.head];
    return result;
  }
  fail(kParamInvalid, "layout %s is not one of BSH, SBH, BSND, BNSD, NBSD, TND and NTD.", std::string(layout).c_str());
}

KeyValue contiguous_keys(const HeadLayout& layout, const TensorView& tensor) {
  KeyValue keys;
  keys.dtype = tensor.dtype;
  keys.dim = layout.dim;
  keys.token_stride = layout.token_stride;
  keys.head_stride = layout.head_stride;
  return keys;
}

PagedLayout paged_layout(const TensorView& cache, const char* name, int64_t heads) {
  require_rank(cache, name, 3, 5);
  PagedLayout layout;
  KeyValue& keys = layout.keys;
  layout.blocks = cache.sizes[0];
  keys.dtype = cache.dtype;
  keys.block_stride = cache.strides[0];
  if (cache.rank() == 3) {
    require(cache.sizes[2] % heads == 0, "the last dimension of %s is %lld, not a multiple of %lld heads.", name,
            static_cast<long long>(cache.sizes[2]), static_cast<long long>(heads));
    layout.block_size = cache.sizes[1];
    keys.dim = keys.head_stride = cache.sizes[2] / heads;
    keys.token_stride = cache.strides[1];
    return layout;
  }
  require(cache.sizes[1] == heads, "%s has %lld heads, but there are %lld key/value heads.", name,
          static_cast<long long>(cache.sizes[1]), static_cast<long long>(heads));
  keys.head_stride = cache.strides[1];
  if (cache.rank() == 4) {
    layout.block_size = cache.sizes[2];
    keys.dim = cache.sizes[3];
    keys.token_stride = cache.strides[2];
    return layout;
  }
  require(cache.sizes[4] == 16, "the last dimension of %s is %lld; the emulator reads FRACTAL_NZ caches of 16-element fractals.",
          name, static_cast<long long>(cache.sizes[4]));
  layout.block_size = cache.sizes[3];
  keys.dim = cache.sizes[2] * 16;
  keys.token_stride = cache.strides[3];
  keys.chunk_stride = cache.strides[2];
  return layout;
}

}  // namespace emulator::aclnn
