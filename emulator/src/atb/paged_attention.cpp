// PagedAttention: one query token a sequence (decode), or several (CALC_TYPE_SPEC: chunked prefill and speculative
// decoding), against a paged cache.
//
// Rules and layouts: ascend-transformer-boost, ops_infer/paged_attention and kernels/mixkernels/pagedattention. What
// differs by chip: Atlas inference products keep the cache in FRACTAL_NZ and read context_lens on the device; A2 and A3
// keep ND and read them on the host, where a sequence of length 0 has no row in the query at all.
#include <memory>

#include "atb/compressed_mask.h"
#include "atb/operation.h"
#include "atb/paged_attention_launch.h"
#include "math/nz.h"

namespace emulator {
namespace {

using ::atb::TensorDesc;
using Parameters = ::atb::infer::PagedAttentionParam;

// block_size * head_size of a cache that two-buffered L0 memory still holds.
constexpr int64_t kBlockLimit = 128 * 128;

// Limits of CALC_TYPE_SPEC (paged_attention_tiling_dependency.h).
constexpr int64_t kSpecMaxBatch = 2000;
constexpr int64_t kSpecMaxHeads = 256;
constexpr int64_t kSpecMaxBlockSize = 128;

void check_parameters(const Parameters& p) {
  const auto invalid = ::atb::ERROR_INVALID_PARAM;
  require(p.headNum > 0, invalid, "headNum must be positive.");
  require(p.kvHeadNum >= 0, invalid, "kvHeadNum must not be negative.");
  require(p.kvHeadNum == 0 || p.headNum % p.kvHeadNum == 0, invalid, "headNum must be a multiple of kvHeadNum.");
  require(p.maskType != Parameters::MASK_TYPE_NORM_COMPRESS || on_atlas_inference(), invalid,
          "MASK_TYPE_NORM_COMPRESS is supported on Atlas inference products only.");
  if (!on_a2_or_a3()) {
    require(p.mlaVHeadSize == 0, invalid, "multi-head latent attention is supported on Atlas A2 and A3 only.");
    require(p.quantType == Parameters::TYPE_QUANT_UNDEFINED, invalid,
            "quantized caches are supported on Atlas A2 and A3 only.");
  }
  if (p.calcType == Parameters::CALC_TYPE_SPEC) {
    const bool permitted = on_atlas_inference()
                               ? p.maskType == Parameters::UNDEFINED || p.maskType == Parameters::MASK_TYPE_SPEC ||
                                     p.maskType == Parameters::MASK_TYPE_NORM_COMPRESS
                               : p.maskType == Parameters::MASK_TYPE_SPEC || p.mlaVHeadSize > 0;
    require(permitted, invalid, "CALC_TYPE_SPEC does not take this mask type.");
    require(p.quantType == Parameters::TYPE_QUANT_UNDEFINED, invalid,
            "CALC_TYPE_SPEC does not take a quantized cache.");
  }
  if (p.mlaVHeadSize > 0) {
    require(p.kvHeadNum == 1, invalid, "multi-head latent attention needs kvHeadNum 1.");
    require(p.mlaVHeadSize <= 576, invalid, "mlaVHeadSize must not exceed 576.");
    require(p.maskType != Parameters::MASK_TYPE_ALIBI, invalid,
            "multi-head latent attention does not take an ALiBi mask.");
  }
  // torch_npu has no function that sends these.
  require(p.maskType != Parameters::MASK_TYPE_NORM && p.maskType != Parameters::MASK_TYPE_MASK_FREE, invalid,
          "the emulator does not implement MASK_TYPE_NORM and MASK_TYPE_MASK_FREE of PagedAttention.");
  require(p.quantType == Parameters::TYPE_QUANT_UNDEFINED || p.quantType == Parameters::TYPE_DEQUANT_FUSION, invalid,
          "the emulator does not implement int8 queries (TYPE_QUANT_QKV_OFFLINE and _ONLINE).");
  require(
      p.compressType == Parameters::COMPRESS_TYPE_UNDEFINED && p.scaleType == Parameters::SCALE_TYPE_TOR &&
          p.inputLayout == ::atb::infer::TYPE_BSND && !p.batchRunStatusEnable && !p.hasQuantOffset,
      invalid,
      "the emulator implements neither compressed heads, logN scaling, BNSD, dynamic batch nor quantization offsets.");
}

class PagedAttention final : public AtbOperation {
 public:
  explicit PagedAttention(const Parameters& parameters)
      : AtbOperation("PagedAttentionOperation"), parameters_(parameters) {
    check_parameters(parameters);
  }

 protected:
  size_t input_count() const override { return query_lengths_index() + (spec() ? 1 : 0) + (dequantizes() ? 2 : 0); }

  std::vector<Combination> combinations() const override {
    std::vector<Combination> result;
    for (aclDataType dtype : {ACL_FLOAT16, ACL_BF16}) {
      for (aclFormat cache : {ACL_FORMAT_ND, ACL_FORMAT_FRACTAL_NZ}) {
        for (aclFormat mask : {ACL_FORMAT_ND, ACL_FORMAT_FRACTAL_NZ}) {
          if (mask == ACL_FORMAT_FRACTAL_NZ && cache == ACL_FORMAT_ND) continue;
          for (aclDataType scale : {ACL_FLOAT, ACL_INT64}) result.push_back(combination(dtype, cache, mask, scale));
        }
      }
    }
    return result;
  }

  void check_inputs(const Descs& inputs) const override {
    const auto &query = inputs[0].shape, &table = inputs[table_index()].shape;
    const auto& context = inputs[table_index() + 1].shape;
    require(query.dimNum == 3 && inputs[1].shape.dimNum == 4 && table.dimNum == 2 && context.dimNum == 1,
            ::atb::ERROR_INVALID_TENSOR_DIM_NUM,
            "query must be [tokens, heads, dim], a cache 4-D, block_table 2-D and context_lens 1-D.");
    require(query.dims[1] == parameters_.headNum, ::atb::ERROR_INVALID_TENSOR_DIM,
            "the query does not have headNum heads.");
    if (!mla()) {
      require(inputs[2].shape.dimNum == 4, ::atb::ERROR_INVALID_TENSOR_DIM_NUM, "a cache must have four dimensions.");
      for (int i : {0, 1, 2}) {
        require(inputs[1].shape.dims[i] == inputs[2].shape.dims[i], ::atb::ERROR_INVALID_TENSOR_DIM,
                "the key and value caches must agree in their first three dimensions.");
      }
    }
    if (dequantizes()) {
      for (size_t i : {inputs.size() - 2, inputs.size() - 1}) {
        require(element_count(inputs[i]) == kv_heads() * inputs[1].shape.dims[3], ::atb::ERROR_INVALID_TENSOR_DIM,
                "a cache's scales must be [kvHeadNum * dim].");
      }
    }
    require(table.dims[0] >= context.dims[0], ::atb::ERROR_INVALID_TENSOR_DIM,
            "block_table has fewer rows than context_lens has lengths.");
    on_atlas_inference() ? check_nz_cache(inputs) : check_nd_cache(inputs);
    if (has_mask()) check_mask(inputs);
    if (spec()) check_spec_limits(inputs);
  }

  Descs infer(const Descs& inputs) const override {
    TensorDesc output = inputs[0];
    if (!on_atlas_inference()) output.shape.dims[2] = mla() ? parameters_.mlaVHeadSize : inputs[2].shape.dims[3];
    return {output};
  }

  void check_tensors(const Tensors& inputs, const Tensors& outputs) const override {
    AtbOperation::check_tensors(inputs, outputs);
    const ::atb::Tensor& context = inputs[table_index() + 1];
    if (on_atlas_inference()) {
      require(context.deviceData != nullptr, ::atb::ERROR_INVALID_TENSOR_ADDR,
              "context_lens must be on the device on Atlas inference products.");
    } else {
      require(context.hostData != nullptr, ::atb::ERROR_INVALID_PARAM,
              "context_lens must be on the host on Atlas A2 and later.");
    }
    if (spec()) check_query_lengths(inputs);
  }

  TaskPtr launch(const Tensors& inputs, const Tensors& outputs) const override {
    auto plan = std::make_shared<PagedAttentionLaunch>();
    fill(*plan, inputs, outputs);
    return std::make_shared<FunctionTask>("PagedAttention", [plan] { return plan->work(); }, [plan] { plan->run(); });
  }

 private:
  bool mla() const { return parameters_.mlaVHeadSize > 0; }
  bool spec() const { return parameters_.calcType == Parameters::CALC_TYPE_SPEC; }
  bool has_mask() const { return parameters_.maskType != Parameters::UNDEFINED; }
  bool dequantizes() const { return parameters_.quantType == Parameters::TYPE_DEQUANT_FUSION; }
  int64_t kv_heads() const { return parameters_.kvHeadNum > 0 ? parameters_.kvHeadNum : parameters_.headNum; }

  // query, key cache, [value cache], block table, context lengths, [mask], [query lengths], [key and value scales]
  size_t table_index() const { return mla() ? 2 : 3; }
  size_t mask_index() const { return table_index() + 2; }
  size_t query_lengths_index() const { return mask_index() + (has_mask() ? 1 : 0); }

  Combination combination(aclDataType dtype, aclFormat cache, aclFormat mask, aclDataType scale) const {
    const Kind values{dtype, ACL_FORMAT_ND}, lengths{ACL_INT32, ACL_FORMAT_ND};
    const Kind cached{dequantizes() ? ACL_INT8 : dtype, cache};
    Combination result{values, cached};
    if (!mla()) result.push_back(cached);
    result.insert(result.end(), {lengths, lengths});
    if (has_mask()) result.push_back({dtype, mask});
    if (spec()) result.push_back(lengths);
    if (dequantizes()) result.insert(result.end(), {{scale, ACL_FORMAT_ND}, {scale, ACL_FORMAT_ND}});
    result.push_back(values);
    return result;
  }

  void check_nz_cache(const Descs& inputs) const {
    const auto& cache = inputs[1].shape.dims;
    const auto status = ::atb::ERROR_INVALID_TENSOR_DIM;
    require(cache[3] == 16 && inputs[2].shape.dims[3] == 16, status,
            "on Atlas inference products a cache is FRACTAL_NZ, [blocks, heads * dim / 16, block_size, 16].");
    require(cache[1] * 16 % kv_heads() == 0, status, "the cache's width must be a multiple of kvHeadNum.");
    const int64_t dim = cache[1] * 16 / kv_heads();
    require(dim % 16 == 0, status, "the head size must be a multiple of 16.");
    if (dim > 256 || dim * cache[2] > kBlockLimit) {
      reject(status,
             "the head size must not exceed 256, nor block_size * head_size 128 * 128; they are %lld and %lld * %lld.",
             (long long)dim, (long long)cache[2], (long long)dim);
    }
    require(cache[2] % 16 == 0, status, "the block size must be a multiple of 16.");
    require(dim == inputs[0].shape.dims[2], status, "query and key cache have different head sizes.");
  }

  void check_nd_cache(const Descs& inputs) const {
    const auto& key = inputs[1].shape.dims;
    const auto status = ::atb::ERROR_INVALID_TENSOR_DIM;
    const int64_t value_dim = mla() ? parameters_.mlaVHeadSize : inputs[2].shape.dims[3];
    require(key[2] == kv_heads(), status, "the cache must be [blocks, block_size, kvHeadNum, dim].");
    require(key[3] == inputs[0].shape.dims[2], status, "query and key cache have different head sizes.");
    require(!mla() || value_dim <= key[3], status, "mlaVHeadSize must not exceed the key's head size.");
    require(key[1] % 16 == 0, status, "the block size must be a multiple of 16.");
    if (spec() || dequantizes()) {
      require(mla() || value_dim == key[3], status, "key and value cache have different head sizes.");
      require(mla() || (key[3] <= 256 && key[3] * key[1] <= kBlockLimit), status,
              "the head size must not exceed 256, nor block_size * head_size 128 * 128.");
    }
    require(key[3] <= 576 && value_dim <= 576, status, "the head size must not exceed 576.");
    const bool wide = key[3] > 256 || value_dim > 256;
    require(!wide || key[1] <= 128 || (mla() && key[1] == 256), status,
            "the block size must not exceed 128 with a head size above 256.");
    require(wide || key[3] != value_dim || key[3] == 256 || key[3] * key[1] <= kBlockLimit, status,
            "block_size * head_size must not exceed 128 * 128.");
  }

  void check_mask(const Descs& inputs) const {
    const TensorDesc& mask = inputs[mask_index()];
    if (parameters_.maskType == Parameters::MASK_TYPE_NORM_COMPRESS) {
      check_compressed_mask(mask);
    } else if (mask.format == ACL_FORMAT_FRACTAL_NZ) {
      require(mask.shape.dimNum == 4 && mask.shape.dims[3] == 16, ::atb::ERROR_INVALID_TENSOR_DIM,
              "a FRACTAL_NZ mask must be [n, keys / 16, rows, 16].");
    } else if (parameters_.maskType == Parameters::MASK_TYPE_ALIBI) {
      require(mask.shape.dimNum == 3 || mask.shape.dimNum == 4, ::atb::ERROR_INVALID_TENSOR_DIM,
              "an ALiBi mask must be [heads, 1, keys] or [batch, heads, 1, keys].");
    } else {
      require(mask.shape.dimNum == 2, ::atb::ERROR_INVALID_TENSOR_DIM,
              "a mask of CALC_TYPE_SPEC must be [tokens, keys].");
    }
  }

  void check_spec_limits(const Descs& inputs) const {
    const int64_t batch = inputs[query_lengths_index()].shape.dims[0];
    const int64_t block_size = inputs[1].shape.dims[on_atlas_inference() ? 2 : 1];
    const auto status = ::atb::ERROR_INVALID_PARAM;
    require(batch == inputs[table_index() + 1].shape.dims[0], ::atb::ERROR_INVALID_TENSOR_DIM,
            "there must be one query length a context length.");
    require(batch <= kSpecMaxBatch, status, "CALC_TYPE_SPEC takes at most 2000 sequences.");
    require(parameters_.headNum <= kSpecMaxHeads, status, "CALC_TYPE_SPEC takes at most 256 heads.");
    require(mla() || block_size <= kSpecMaxBlockSize, status, "CALC_TYPE_SPEC takes blocks of at most 128 tokens.");
    require(mla() || inputs[0].shape.dims[2] * parameters_.headNum <= kBlockLimit, status,
            "CALC_TYPE_SPEC takes at most 128 * 128 query elements a token.");
  }

  void check_query_lengths(const Tensors& inputs) const {
    const ::atb::Tensor& lengths = inputs[query_lengths_index()];
    require(lengths.hostData != nullptr, ::atb::ERROR_INVALID_PARAM, "the query lengths must be on the host.");
    int64_t total = 0;
    for (int32_t length : Lengths(lengths).read()) {
      require(length > 0, ::atb::ERROR_INVALID_PARAM, "every query length must be positive.");
      total += length;
    }
    if (total > inputs[0].desc.shape.dims[0]) {
      reject(::atb::ERROR_INVALID_PARAM, "the query lengths add up to %lld, but the query has %lld tokens.",
             (long long)total, (long long)inputs[0].desc.shape.dims[0]);
    }
    if (parameters_.maskType != Parameters::MASK_TYPE_SPEC) return;
    const TensorDesc& mask = inputs[mask_index()].desc;
    const int64_t rows = mask.format == ACL_FORMAT_FRACTAL_NZ ? mask.shape.dims[2] : mask.shape.dims[0];
    const int64_t needed = mask.format == ACL_FORMAT_FRACTAL_NZ ? round_up(total, 16) : total;
    if (mask.format == ACL_FORMAT_FRACTAL_NZ ? rows != needed : rows < needed) {
      reject(::atb::ERROR_INVALID_TENSOR_DIM, "the mask has %lld rows, but %lld query tokens need %lld.",
             (long long)rows, (long long)total, (long long)needed);
    }
  }

  void fill(PagedAttentionLaunch& plan, const Tensors& inputs, const Tensors& outputs) const {
    const auto &query = inputs[0].desc.shape.dims, &cache = inputs[1].desc.shape.dims;
    plan.parameters = parameters_;
    plan.nz_cache = on_atlas_inference();
    plan.heads = parameters_.headNum;
    plan.kv_heads = kv_heads();
    plan.tokens = query[0];
    plan.dim = query[2];
    plan.value_dim = outputs[0].desc.shape.dims[2];
    plan.block_count = cache[0];
    plan.block_size = plan.nz_cache ? cache[2] : cache[1];
    plan.dtype = inputs[0].desc.dtype;
    plan.query = inputs[0];
    plan.key_cache = inputs[1];
    if (!mla()) plan.value_cache = inputs[2];
    plan.block_table = inputs[table_index()];
    plan.table_rows = plan.block_table.desc.shape.dims[0];
    plan.table_width = plan.block_table.desc.shape.dims[1];
    plan.context_lengths = std::make_shared<Lengths>(inputs[table_index() + 1]);
    if (has_mask()) plan.mask = inputs[mask_index()];
    if (spec()) plan.query_lengths = Lengths(inputs[query_lengths_index()]).read();
    if (dequantizes()) {
      plan.key_scale = inputs[inputs.size() - 2];
      plan.value_scale = inputs[inputs.size() - 1];
    }
    plan.output = outputs[0];
  }

  Parameters parameters_;
};

}  // namespace
}  // namespace emulator

template <>
atb::Status atb::CreateOperation(const infer::PagedAttentionParam& parameters, Operation** operation) {
  return emulator::create<emulator::PagedAttention>("PagedAttentionOperation", parameters, operation);
}
