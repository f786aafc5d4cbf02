// SelfAttention without a contiguous cache: PA_ENCODER (unpadded prompts, lengths on the host) and PREFIX_ENCODER
// (prompts whose prefix lies in a paged cache).
//
// Rules: ascend-transformer-boost, ops_infer/self_attention; mask arithmetic:
// kernels/mixkernels/unpad_flash_attention*.
#include <algorithm>
#include <memory>
#include <numeric>

#include "atb/compressed_mask.h"
#include "atb/operation.h"
#include "atb/self_attention_launch.h"

namespace emulator {
namespace {

using ::atb::TensorDesc;
using Parameters = ::atb::infer::SelfAttentionParam;

constexpr int64_t kBlockLimit = 128 * 128;

void check_prefix_parameters(const Parameters& p) {
  const auto invalid = ::atb::ERROR_INVALID_PARAM;
  require(on_a2_or_a3(), invalid, "PREFIX_ENCODER is supported on Atlas A2 and A3 only.");
  require(p.isTriuMask == 1, invalid, "PREFIX_ENCODER needs isTriuMask 1.");
  require(p.kernelType == Parameters::KERNELTYPE_HIGH_PRECISION, invalid,
          "PREFIX_ENCODER needs KERNELTYPE_HIGH_PRECISION.");
  require(
      p.maskType == Parameters::MASK_TYPE_NORM_COMPRESS || p.maskType == Parameters::MASK_TYPE_CAUSAL_MASK, invalid,
      "PREFIX_ENCODER takes MASK_TYPE_NORM_COMPRESS here (the emulator does not implement compressed ALiBi masks).");
}

void check_parameters(const Parameters& p) {
  const auto invalid = ::atb::ERROR_INVALID_PARAM;
  require(p.headNum > 0, invalid, "headNum must be positive.");
  require(p.kvHeadNum >= 0, invalid, "kvHeadNum must not be negative.");
  require(p.kvHeadNum == 0 || p.headNum % p.kvHeadNum == 0, invalid, "headNum must be a multiple of kvHeadNum.");
  require(p.kvcacheCfg == Parameters::K_CACHE_V_CACHE, invalid, "kvcacheCfg must be K_CACHE_V_CACHE.");
  require(p.maskType != Parameters::MASK_TYPE_UNDEFINED || p.isTriuMask == 0, invalid,
          "isTriuMask must be 0 without a mask.");
  require(p.kernelType >= Parameters::KERNELTYPE_DEFAULT && p.kernelType <= Parameters::KERNELTYPE_EXP_M8V2, invalid,
          "kernelType must be KERNELTYPE_DEFAULT, KERNELTYPE_HIGH_PRECISION or KERNELTYPE_EXP_M8V2.");
  if (p.kernelType == Parameters::KERNELTYPE_EXP_M8V2) {
    require(on_atlas_inference(), invalid, "KERNELTYPE_EXP_M8V2 is supported on Atlas inference products only.");
    require(p.isTriuMask == 0, invalid, "KERNELTYPE_EXP_M8V2 needs isTriuMask 0.");
  }
  require(p.calcType == Parameters::PA_ENCODER || p.calcType == Parameters::PREFIX_ENCODER, invalid,
          "the emulator implements PA_ENCODER and PREFIX_ENCODER only: torch_npu sends no other calcType.");
  require(p.maskType <= Parameters::MASK_TYPE_NORM_COMPRESS || p.maskType == Parameters::MASK_TYPE_CAUSAL_MASK, invalid,
          "the emulator implements neither compressed ALiBi nor sliding-window masks.");
  require(p.quantType == Parameters::TYPE_QUANT_UNDEFINED && p.scaleType == Parameters::SCALE_TYPE_TOR &&
              p.clampType == Parameters::CLAMP_TYPE_UNDEFINED && p.inputLayout == ::atb::infer::TYPE_BSND &&
              p.mlaVHeadSize == 0 && p.windowSize == 0 && !p.batchRunStatusEnable,
          invalid,
          "the emulator implements neither quantization, logN scaling, clamping, BNSD, merged caches, sliding windows "
          "nor dynamic batch.");
  if (p.calcType == Parameters::PREFIX_ENCODER) check_prefix_parameters(p);
}

class SelfAttention final : public AtbOperation {
 public:
  explicit SelfAttention(const Parameters& parameters)
      : AtbOperation("SelfAttentionOperation"), parameters_(parameters) {
    check_parameters(parameters);
    // On Atlas inference products a compressed mask implies skipping what lies above the diagonal.
    if (parameters.maskType == Parameters::MASK_TYPE_NORM_COMPRESS && on_atlas_inference()) parameters_.isTriuMask = 1;
  }

 protected:
  size_t input_count() const override { return lengths_index() + (prefix() ? 2 : 1); }

  std::vector<Combination> combinations() const override {
    std::vector<Combination> result;
    for (aclDataType dtype : {ACL_FLOAT16, ACL_BF16}) {
      for (aclFormat mask : {ACL_FORMAT_ND, ACL_FORMAT_FRACTAL_NZ}) {
        for (aclDataType length : {ACL_INT32, ACL_UINT32}) {
          const Kind values{dtype, ACL_FORMAT_ND}, lengths{length, ACL_FORMAT_ND};
          Combination combination{values, values, values};
          if (prefix()) combination.push_back({ACL_INT32, ACL_FORMAT_ND});
          if (has_mask()) combination.push_back({dtype, mask});
          combination.push_back(lengths);
          if (prefix()) combination.push_back(lengths);
          combination.push_back(values);
          result.push_back(combination);
        }
      }
    }
    return result;
  }

  void check_inputs(const Descs& inputs) const override {
    check_head_size(inputs);
    prefix() ? check_paged(inputs) : check_unpadded(inputs);
    if (has_mask()) check_mask(inputs[mask_index()], inputs[lengths_index()]);
  }

  Descs infer(const Descs& inputs) const override {
    TensorDesc output = inputs[0];
    const int last = static_cast<int>(output.shape.dimNum) - 1;
    if (!prefix()) output.shape.dims[last] = last == 1 ? parameters_.headNum * value_dim(inputs) : value_dim(inputs);
    return {output};
  }

  void check_tensors(const Tensors& inputs, const Tensors& outputs) const override {
    AtbOperation::check_tensors(inputs, outputs);
    std::vector<int32_t> query_lengths, kv_lengths;
    read_lengths(inputs, &query_lengths, &kv_lengths);
    check_total(query_lengths, inputs[0].desc.shape.dims[0], "query");
    if (!prefix()) check_total(kv_lengths, inputs[1].desc.shape.dims[0], "key");
    if (!has_mask() || parameters_.maskType == Parameters::MASK_TYPE_NORM_COMPRESS) return;
    const TensorDesc& mask = inputs[mask_index()].desc;
    const bool nz = mask.format == ACL_FORMAT_FRACTAL_NZ;
    const uint64_t rank = mask.shape.dimNum;
    const int64_t rows = nz ? mask.shape.dims[2] : mask.shape.dims[rank - 2];
    const int64_t keys = nz ? mask.shape.dims[1] * 16 : mask.shape.dims[rank - 1];
    for (size_t i = 0; i < query_lengths.size(); ++i) {
      if (query_lengths[i] > rows || kv_lengths[i] > keys) {
        reject(::atb::ERROR_INVALID_PARAM, "sequence %zu has %d queries and %d keys, but the mask is %lld x %lld.", i,
               query_lengths[i], kv_lengths[i], (long long)rows, (long long)keys);
      }
    }
  }

  TaskPtr launch(const Tensors& inputs, const Tensors& outputs) const override {
    Descs descs;
    for (const auto& tensor : inputs) descs.push_back(tensor.desc);
    auto plan = std::make_shared<SelfAttentionLaunch>();
    plan->parameters = parameters_;
    plan->heads = parameters_.headNum;
    plan->kv_heads = kv_heads();
    plan->dim = key_dim(descs);
    plan->value_dim = value_dim(descs);
    plan->dtype = inputs[0].desc.dtype;
    plan->query = inputs[0];
    plan->key = inputs[1];
    plan->value = inputs[2];
    plan->output = outputs[0];
    if (has_mask()) plan->mask = inputs[mask_index()];
    if (prefix()) {
      plan->block_table = inputs[3];
      plan->table_width = inputs[3].desc.shape.dims[1];
      plan->block_count = inputs[1].desc.shape.dims[0];
      plan->block_size = inputs[1].desc.shape.dims[1];
    }
    read_lengths(inputs, &plan->query_lengths, &plan->kv_lengths);
    return std::make_shared<FunctionTask>("SelfAttention", plan->work(), [plan] { plan->run(); });
  }

 private:
  bool prefix() const { return parameters_.calcType == Parameters::PREFIX_ENCODER; }
  bool has_mask() const {
    return parameters_.maskType != Parameters::MASK_TYPE_UNDEFINED &&
           parameters_.maskType != Parameters::MASK_TYPE_CAUSAL_MASK;
  }
  int64_t kv_heads() const { return parameters_.kvHeadNum > 0 ? parameters_.kvHeadNum : parameters_.headNum; }

  // query, key, value, [block table], [mask], query lengths, [key lengths]
  size_t mask_index() const { return prefix() ? 4 : 3; }
  size_t lengths_index() const { return mask_index() + (has_mask() ? 1 : 0); }

  int64_t head_dim(const TensorDesc& desc, int64_t heads, uint64_t merged_rank) const {
    const int64_t last = desc.shape.dims[desc.shape.dimNum - 1];
    return desc.shape.dimNum == merged_rank ? last / heads : last;
  }
  int64_t key_dim(const Descs& inputs) const { return head_dim(inputs[1], kv_heads(), prefix() ? 3 : 2); }
  int64_t value_dim(const Descs& inputs) const { return head_dim(inputs[2], kv_heads(), prefix() ? 3 : 2); }

  void check_head_size(const Descs& inputs) const {
    const auto status = ::atb::ERROR_INVALID_TENSOR_DIM;
    const int64_t key = key_dim(inputs), value = value_dim(inputs);
    require(head_dim(inputs[0], parameters_.headNum, 2) == key, status, "query and key have different head sizes.");
    if (prefix()) {
      require(key <= 128 && key % 16 == 0 && key == value, status,
              "PREFIX_ENCODER needs one head size, a multiple of 16 up to 128.");
    } else if (on_atlas_inference()) {
      require(same_desc(inputs[1], inputs[2]), status, "key and value must have one shape.");
      require(key <= 256 && key % 16 == 0, status, "the head size must be a multiple of 16 up to 256.");
    } else if (key != value) {
      require(key <= 1024 && value <= 1024, status, "the head size must not exceed 1024.");
    } else {
      require(key <= 576, status, "the head size must not exceed 576.");
    }
  }

  void check_unpadded(const Descs& inputs) const {
    const uint64_t rank = inputs[0].shape.dimNum;
    require(rank == 2 || rank == 3, ::atb::ERROR_INVALID_TENSOR_SIZE,
            "query must be [tokens, heads * dim] or [tokens, heads, dim].");
    require(inputs[1].shape.dimNum == rank && inputs[2].shape.dimNum == rank, ::atb::ERROR_INVALID_TENSOR_SIZE,
            "query, key and value must have the same number of dimensions.");
    for (uint64_t i = 0; i + 1 < rank; ++i) {
      require(inputs[1].shape.dims[i] == inputs[2].shape.dims[i], ::atb::ERROR_INVALID_TENSOR_DIM,
              "key and value must agree in all dimensions but the last.");
    }
    if (rank == 3) {
      require(inputs[0].shape.dims[1] == parameters_.headNum && inputs[1].shape.dims[1] == kv_heads(),
              ::atb::ERROR_INVALID_TENSOR_DIM, "query and key do not have headNum and kvHeadNum heads.");
    }
    const auto& lengths = inputs[lengths_index()].shape;
    require(lengths.dimNum == 1 || (lengths.dimNum == 2 && lengths.dims[0] == 2), ::atb::ERROR_INVALID_TENSOR_DIM,
            "seq_len must be [batch] or [2, batch].");
  }

  void check_paged(const Descs& inputs) const {
    const auto &key = inputs[1].shape, &table = inputs[3].shape;
    const auto &lengths = inputs[lengths_index()].shape, &kv_lengths = inputs[lengths_index() + 1].shape;
    require(inputs[0].shape.dimNum == 2 || inputs[0].shape.dimNum == 3, ::atb::ERROR_INVALID_TENSOR_DIM_NUM,
            "query must be [tokens, heads * dim] or [tokens, heads, dim].");
    require((key.dimNum == 3 || key.dimNum == 4) && inputs[2].shape.dimNum == key.dimNum,
            ::atb::ERROR_INVALID_TENSOR_DIM_NUM, "a cache must be [blocks, block_size, heads, dim].");
    require(table.dimNum == 2 && lengths.dimNum == 1 && kv_lengths.dimNum == 1, ::atb::ERROR_INVALID_TENSOR_DIM_NUM,
            "block_table must be 2-D, seq_len and context_lens 1-D.");
    require(lengths.dims[0] == table.dims[0] && kv_lengths.dims[0] == table.dims[0], ::atb::ERROR_INVALID_TENSOR_DIM,
            "block_table, seq_len and context_lens have different batch sizes.");
    require(key.dims[1] * key_dim(inputs) <= kBlockLimit, ::atb::ERROR_INVALID_TENSOR_DIM,
            "block_size * head_size must not exceed 128 * 128.");
  }

  void check_mask(const TensorDesc& mask, const TensorDesc& lengths) const {
    const auto& dims = mask.shape.dims;
    const uint64_t rank = mask.shape.dimNum;
    const bool nz = mask.format == ACL_FORMAT_FRACTAL_NZ;
    require(!nz || on_atlas_inference(), ::atb::ERROR_INVALID_TENSOR_FORMAT, "the mask must be ND on this chip.");
    if (parameters_.maskType == Parameters::MASK_TYPE_NORM_COMPRESS) {
      const bool short_nz = nz && rank == 4 && dims[0] == 1 && dims[1] == 8 && dims[2] == 128 && dims[3] == 16;
      if (short_nz) return;
      if (nz) return check_compressed_mask(mask);
      const int64_t size = chip().product == kA5 ? kCompressedMaskSize : kShortCompressedMask;
      if (rank != 2 || dims[0] != size || dims[1] != size) {
        reject(::atb::ERROR_INVALID_TENSOR_DIM, "a compressed mask must be %s[%lld, %lld] in ND, not %s.",
               on_atlas_inference() ? "[1, 128, 2048, 16] in FRACTAL_NZ, or " : "", (long long)size, (long long)size,
               describe(mask).c_str());
      }
      return;
    }
    if (nz) {
      require(rank == 4 && dims[3] == 16, ::atb::ERROR_INVALID_TENSOR_DIM,
              "a FRACTAL_NZ mask must be [n, keys / 16, rows, 16].");
    } else {
      require(rank >= 2 && rank <= 4, ::atb::ERROR_INVALID_TENSOR_SIZE, "a mask must have two to four dimensions.");
    }
    const int64_t batch = lengths.shape.dims[lengths.shape.dimNum - 1];
    if (parameters_.maskType == Parameters::MASK_TYPE_ALIBI) {
      require(nz ? dims[0] % parameters_.headNum == 0 : rank >= 3 && dims[rank - 3] == parameters_.headNum,
              ::atb::ERROR_INVALID_TENSOR_DIM, "an ALiBi mask needs one matrix a head.");
    } else {
      const bool one_matrix = nz ? dims[0] == 1 : rank == 2 || (rank == 3 && dims[0] == 1);
      require(one_matrix || ((nz || rank == 3) && dims[0] == batch), ::atb::ERROR_INVALID_TENSOR_SIZE,
              "a mask must be one matrix, or one a sequence.");
    }
  }

  void read_lengths(const Tensors& inputs, std::vector<int32_t>* query_lengths,
                    std::vector<int32_t>* kv_lengths) const {
    const ::atb::Tensor& lengths = inputs[lengths_index()];
    require(lengths.hostData != nullptr, ::atb::ERROR_INVALID_PARAM, "seq_len must be on the host.");
    *query_lengths = Lengths(lengths).read();
    if (prefix()) {
      require(inputs[lengths_index() + 1].hostData != nullptr, ::atb::ERROR_INVALID_PARAM,
              "context_lens must be on the host.");
      *kv_lengths = Lengths(inputs[lengths_index() + 1]).read();
    } else if (lengths.desc.shape.dimNum == 2) {  // rows: query lengths, key lengths
      kv_lengths->assign(query_lengths->begin() + lengths.desc.shape.dims[1], query_lengths->end());
      query_lengths->resize(lengths.desc.shape.dims[1]);
    } else {
      *kv_lengths = *query_lengths;
    }
  }

  static void check_total(const std::vector<int32_t>& lengths, int64_t tokens, const char* what) {
    require(std::all_of(lengths.begin(), lengths.end(), [](int32_t length) { return length >= 0; }),
            ::atb::ERROR_INVALID_PARAM, "a sequence length is negative.");
    const int64_t total = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
    if (total > tokens) {
      reject(::atb::ERROR_INVALID_PARAM, "seq_len adds up to %lld, but the %s has %lld tokens.", (long long)total, what,
             (long long)tokens);
    }
  }

  Parameters parameters_;
};

}  // namespace
}  // namespace emulator

template <>
atb::Status atb::CreateOperation(const infer::SelfAttentionParam& parameters, Operation** operation) {
  return emulator::create<emulator::SelfAttention>("SelfAttentionOperation", parameters, operation);
}
