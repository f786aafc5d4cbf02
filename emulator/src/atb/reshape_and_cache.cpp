// ReshapeAndCache: writes the new keys and values of a step into the paged cache, one slot a token.
//
// Layouts (ascend-transformer-boost, ops_infer/reshape_and_cache): ND cache [blocks, block_size, heads, dim] on A2 and
// A3; FRACTAL_NZ cache [blocks, heads * dim / 16, block_size, 16] on Atlas inference products (32 instead of 16 for
// int8).
#include "atb/operation.h"
#include "math/attention.h"

namespace emulator {
namespace {

using ::atb::TensorDesc;
using Parameters = ::atb::infer::ReshapeAndCacheParam;

class ReshapeAndCache final : public AtbOperation {
 public:
  explicit ReshapeAndCache(const Parameters& parameters)
      : AtbOperation("ReshapeAndCacheOperation"), parameters_(parameters) {
    const bool compressed = parameters.compressType != Parameters::COMPRESS_TYPE_UNDEFINED;
    if (!on_a2_or_a3()) {
      require(!compressed, ::atb::ERROR_INVALID_PARAM, "compressing heads is supported on Atlas A2 and A3 only.");
      require(key_and_value() || chip().product == kA5, ::atb::ERROR_INVALID_PARAM,
              "K_CACHE_V_BYPASS (a key cache alone) is not supported on Atlas inference products.");
    }
    require(!compressed, ::atb::ERROR_INVALID_PARAM,
            "the emulator does not implement compressed heads (RazorAttention).");
  }

 protected:
  size_t input_count() const override { return key_and_value() ? 5 : 3; }
  size_t output_count() const override { return key_and_value() ? 2 : 1; }

  std::vector<Combination> combinations() const override {
    const aclFormat cache = nz() ? ACL_FORMAT_FRACTAL_NZ : ACL_FORMAT_ND;
    std::vector<Combination> result;
    for (aclDataType dtype : {ACL_FLOAT16, ACL_INT8, ACL_BF16}) {
      const Kind source{dtype, ACL_FORMAT_ND}, target{dtype, cache}, slots{ACL_INT32, ACL_FORMAT_ND};
      if (key_and_value()) {
        result.push_back({source, source, target, target, slots, target, target});
      } else {
        result.push_back({source, target, slots, target});
      }
    }
    return result;
  }

  void check_inputs(const Descs& inputs) const override {
    const TensorDesc& slots = inputs.back();
    const size_t pairs = key_and_value() ? 2 : 1;
    require(slots.shape.dimNum == 1, ::atb::ERROR_INVALID_TENSOR_DIM_NUM, "slots must have one dimension.");
    for (size_t i = 0; i < pairs; ++i) check_pair(inputs[i], inputs[pairs + i], slots.shape.dims[0]);
    if (!key_and_value()) return;
    const auto &key = inputs[0].shape.dims, &value = inputs[1].shape.dims;
    require(key[0] == value[0], ::atb::ERROR_INVALID_TENSOR_DIM, "key and value have different numbers of tokens.");
    require(key[1] == value[1], ::atb::ERROR_INVALID_TENSOR_DIM, "key and value have different numbers of heads.");
    if (on_atlas_inference()) {
      require(key[2] == value[2], ::atb::ERROR_INVALID_TENSOR_DIM, "key and value have different head sizes.");
    }
    const auto &key_cache = inputs[2].shape.dims, &value_cache = inputs[3].shape.dims;
    require(key_cache[0] == value_cache[0], ::atb::ERROR_INVALID_TENSOR_DIM, "the caches have different block counts.");
    const int block_size = nz() ? 2 : 1;
    require(key_cache[block_size] == value_cache[block_size], ::atb::ERROR_INVALID_TENSOR_DIM,
            "the caches have different block sizes.");
  }

  Descs infer(const Descs& inputs) const override {
    return key_and_value() ? Descs{inputs[2], inputs[3]} : Descs{inputs[1]};
  }

  TaskPtr launch(const Tensors& inputs, const Tensors& outputs) const override {
    const size_t pairs = key_and_value() ? 2 : 1;
    const ::atb::Tensor& slots = inputs[inputs.size() - 1];
    Work work;
    for (size_t i = 0; i < pairs; ++i) work.read_bytes += inputs[i].dataSize;
    work.written_bytes = work.read_bytes;
    std::vector<CacheWrite> writes;
    for (size_t i = 0; i < pairs; ++i) writes.push_back(plan(inputs[i], inputs[pairs + i], slots));
    return std::make_shared<FunctionTask>("ReshapeAndCache", work, [writes] {
      for (CacheWrite write : writes) {
        write.source = host_address(write.source);
        write.cache.data = host_address(write.cache.data);
        write.slots = host_address(write.slots);
        write_cache(write);
      }
    });
  }

 private:
  bool key_and_value() const { return parameters_.kvCacheCfg != Parameters::K_CACHE_V_BYPASS; }
  bool nz() const { return on_atlas_inference() || parameters_.kvCacheCfg == Parameters::K_CACHE_V_CACHE_NZ; }

  void check_pair(const TensorDesc& source, const TensorDesc& cache, int64_t slots) const {
    require(source.shape.dimNum == 3, ::atb::ERROR_INVALID_TENSOR_DIM_NUM,
            "key and value must be [tokens, heads, dim].");
    require(cache.shape.dimNum == 4, ::atb::ERROR_INVALID_TENSOR_DIM_NUM, "a cache must have four dimensions.");
    const auto &from = source.shape.dims, &to = cache.shape.dims;
    require(from[1] * from[2] * element_bits(source.dtype) % 256 == 0, ::atb::ERROR_INVALID_TENSOR_DIM,
            "heads * dim must be a multiple of 32 bytes.");
    require(from[0] == slots, ::atb::ERROR_INVALID_TENSOR_DIM, "there must be one slot a token.");
    if (!nz()) {
      require(from[1] == to[2] && from[2] == to[3], ::atb::ERROR_INVALID_TENSOR_DIM,
              "the cache must be [blocks, block_size, heads, dim] with the heads and dim of the tokens.");
      return;
    }
    const int64_t width = cache.dtype == ACL_INT8 ? 32 : 16;
    require(to[2] % 16 == 0, ::atb::ERROR_INVALID_TENSOR_DIM,
            "the block size of a FRACTAL_NZ cache must be a multiple of 16.");
    if (to[3] != width || from[1] * from[2] != to[1] * width) {
      reject(::atb::ERROR_INVALID_TENSOR_DIM,
             "a FRACTAL_NZ cache of %lld heads of %lld must be [blocks, %lld, block_size, %lld], not %s.",
             (long long)from[1], (long long)from[2], (long long)(from[1] * from[2] / width), (long long)width,
             describe(cache).c_str());
    }
  }

  // A row is a whole number of 32-byte fractal rows, so two-byte units serve int8 as well.
  CacheWrite plan(const ::atb::Tensor& source, const ::atb::Tensor& cache, const ::atb::Tensor& slots) const {
    const auto &from = source.desc.shape.dims, &to = cache.desc.shape.dims;
    const int64_t width = from[1] * from[2] * element_bits(source.desc.dtype) / 16;
    CacheWrite write;
    write.tokens = from[0];
    write.heads = 1;
    write.element_bytes = 2;
    write.source = source.deviceData;
    write.source_token_stride = width;
    write.source_head_stride = width;
    write.block_count = to[0];
    write.block_size = nz() ? to[2] : to[1];
    write.cache = nz() ? nz_paged_cache(cache.deviceData, ACL_FLOAT16, 1, width, write.block_size)
                       : nd_paged_cache(cache.deviceData, ACL_FLOAT16, 1, width, write.block_size);
    write.slots = slots.deviceData;
    return write;
  }

  Parameters parameters_;
};

}  // namespace
}  // namespace emulator

template <>
atb::Status atb::CreateOperation(const infer::ReshapeAndCacheParam& parameters, Operation** operation) {
  return emulator::create<emulator::ReshapeAndCache>("ReshapeAndCacheOperation", parameters, operation);
}
