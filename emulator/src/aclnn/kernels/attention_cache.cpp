// Writing keys and values into a paged cache. Semantics: torch_npu's document of npu_scatter_pa_kv_cache.
#include "aclnn/kernels/attention_layout.h"
#include "aclnn/kernels/contiguous.h"
#include "aclnn_arguments.h"

namespace emulator::aclnn {

namespace {

bool is_fractal_mode(const std::string& mode) { return mode == "PA_NZ"; }

// Element counts are those of pairs of bytes for one-byte types: a 32-wide fractal of bytes is a 16-wide one of pairs.
int64_t bytes_per_unit(const TensorView& cache) { return element_bits(cache.dtype) == 8 ? 2 : element_bits(cache.dtype) / 8; }
int64_t elements_per_unit(const TensorView& cache) { return element_bits(cache.dtype) == 8 ? 2 : 1; }

// source [tokens, heads, dim] into cache [blocks, heads * dim / c0, block_size, c0] or [blocks, block_size, heads, dim].
void scatter(const TensorView& source, const TensorView& cache, const TensorView& slots, bool fractal) {
  const DenseInput values(source), slot_ids(slots);
  const int64_t unit = elements_per_unit(cache), heads = source.sizes[1], dim = source.sizes[2] / unit;
  CacheWrite write;
  write.source = values.data();
  write.tokens = source.sizes[0];
  write.heads = heads;
  write.element_bytes = bytes_per_unit(cache);
  write.source_token_stride = heads * dim;
  write.source_head_stride = dim;
  write.block_count = cache.sizes[0];
  write.block_size = fractal ? cache.sizes[2] : cache.sizes[1];
  write.cache = fractal ? nz_paged_cache(cache.data(), ACL_FLOAT16, heads, dim, write.block_size)
                        : nd_paged_cache(cache.data(), ACL_FLOAT16, heads, dim, write.block_size);
  write.cache.block_stride = cache.strides[0] / unit;
  write.slots = slot_ids.data();
  write.slots_dtype = slots.dtype;
  write_cache(write);
}

void check_cache(const TensorView& source, const char* source_name, const TensorView& cache, const char* name, bool fractal) {
  require_same_dtype(cache, name, source, source_name);
  require_rank(cache, name, 4, 4);
  const int64_t width = source.sizes[1] * source.sizes[2];
  if (fractal) {
    const int64_t c0 = element_bits(cache.dtype) == 8 ? 32 : 16;
    require(cache.sizes[3] == c0, "%s has a last dimension of %lld, but FRACTAL_NZ of %s needs %lld.", name,
            static_cast<long long>(cache.sizes[3]), dtype_name(cache.dtype), static_cast<long long>(c0));
    require(cache.sizes[1] * c0 == width && source.sizes[2] % c0 == 0,
            "%s %s does not fit %s %s: heads * head size must be %lld and the head size a multiple of %lld.", name,
            to_string(cache.sizes).c_str(), source_name, to_string(source.sizes).c_str(),
            static_cast<long long>(cache.sizes[1] * c0), static_cast<long long>(c0));
  } else {
    require(!cache.is_fractal_nz(), "%s has format FRACTAL_NZ; give cacheMode PA_NZ.", name);
    require(cache.sizes[2] == source.sizes[1] && cache.sizes[3] == source.sizes[2],
            "%s %s must end in the heads and head size of %s %s.", name, to_string(cache.sizes).c_str(), source_name,
            to_string(source.sizes).c_str());
  }
  Dims dense = cache.sizes;  // blocks may lie apart, a block may not
  require(cache.strides[3] == 1 && cache.strides[2] == dense[3] && cache.strides[1] == dense[2] * dense[3],
          "%s must be contiguous within a block.", name);
}

}  // namespace

ACLNN_CHECK(ScatterPaKvCache) {
  require(a.key.rank() == 3 && !a.compressLensOptional.defined(),
          "the emulator implements keys of 3 dimensions [tokens, heads, head size], without compression.");
  require(a.scatterModeOptional.empty() || a.scatterModeOptional == "None", "the emulator does not implement scatterMode \"%s\".",
          a.scatterModeOptional.c_str());
  require(a.cacheModeOptional.empty() || a.cacheModeOptional == "Norm" || a.cacheModeOptional == "PA_NZ",
          "cacheMode is \"%s\", but must be \"Norm\" or \"PA_NZ\".", a.cacheModeOptional.c_str());
  // op_api's list of every product but Ascend 950 (aclnn_scatter_pa_kv_cache.cpp).
  if (chip().product != kA5) require_dtype(a.key, "key", {ACL_FLOAT16, ACL_BF16, ACL_INT8});
  require(a.key.numel() > 0 && a.value.numel() > 0 && a.keyCacheRef.numel() > 0 && a.valueCacheRef.numel() > 0,
          "empty tensors are not supported.");
  require_rank(a.value, "value", 3, 3);
  require_same_dtype(a.value, "value", a.key, "key");
  require(a.value.sizes[0] == a.key.sizes[0] && a.value.sizes[1] == a.key.sizes[1],
          "key %s and value %s must have the same tokens and heads.", to_string(a.key.sizes).c_str(),
          to_string(a.value.sizes).c_str());
  require_dtype(a.slotMapping, "slotMapping", {ACL_INT32, ACL_INT64});
  require_sizes(a.slotMapping, "slotMapping", Dims{a.key.sizes[0]});
  const bool fractal = is_fractal_mode(a.cacheModeOptional);
  check_cache(a.key, "key", a.keyCacheRef, "keyCacheRef", fractal);
  check_cache(a.value, "value", a.valueCacheRef, "valueCacheRef", fractal);
}
ACLNN_KERNEL(ScatterPaKvCache) {
  const bool fractal = is_fractal_mode(a.cacheModeOptional);
  scatter(a.key, a.keyCacheRef, a.slotMapping, fractal);
  scatter(a.value, a.valueCacheRef, a.slotMapping, fractal);
}
ACLNN_WORK(ScatterPaKvCache) {  // the tokens, not the cache
  const double bytes = static_cast<double>(size_in_bytes(a.key.sizes, a.key.dtype) + size_in_bytes(a.value.sizes, a.value.dtype));
  return {.read_bytes = bytes, .written_bytes = bytes};
}

}  // namespace emulator::aclnn
