// The versions of FusedInferAttentionScore, and the two older operators that it replaced.
#include "aclnn/kernels/attention_fused_infer.h"
#include "aclnn/kernels/norm_rows.h"
#include "aclnn_arguments.h"

namespace emulator::aclnn {

namespace {

// Arguments that every version from V2 on has.
template <class Args>
FusedInfer common(const Args& a) {
  FusedInfer op;
  op.query = &a.query;
  op.key = &a.key;
  op.value = &a.value;
  op.pse_shift = &a.pseShiftOptional;
  op.mask = &a.attenMaskOptional;
  op.query_lengths = &a.actualSeqLengthsOptional;
  op.kv_lengths = &a.actualSeqLengthsKvOptional;
  op.full_quant[0] = &a.deqScale1Optional;
  op.full_quant[1] = &a.quantScale1Optional;
  op.full_quant[2] = &a.deqScale2Optional;
  op.quant_scale = &a.quantScale2Optional;
  op.quant_offset = &a.quantOffset2Optional;
  op.antiquant_scale = &a.antiquantScaleOptional;
  op.antiquant_offset = &a.antiquantOffsetOptional;
  op.block_table = &a.blockTableOptional;
  op.query_padding = &a.queryPaddingSizeOptional;
  op.kv_padding = &a.kvPaddingSizeOptional;
  op.key_scale = &a.keyAntiquantScaleOptional;
  op.key_offset = &a.keyAntiquantOffsetOptional;
  op.value_scale = &a.valueAntiquantScaleOptional;
  op.value_offset = &a.valueAntiquantOffsetOptional;
  op.prefix = &a.keySharedPrefixOptional;
  op.heads = a.numHeads;
  op.kv_heads = a.numKeyValueHeads;
  op.scale = a.scaleValue;
  op.pre_tokens = a.preTokens;
  op.next_tokens = a.nextTokens;
  op.layout = a.inputLayout;
  op.sparse_mode = a.sparseMode;
  op.block_size = a.blockSize;
  op.antiquant_mode = a.antiquantMode;
  op.wants_lse = a.softmaxLseFlag;
  op.key_mode = a.keyAntiquantMode;
  op.value_mode = a.valueAntiquantMode;
  op.output = &a.attentionOut;
  op.lse = &a.softmaxLse;
  if constexpr (requires { a.queryRopeOptional; }) {
    op.query_rope = &a.queryRopeOptional;
    op.key_rope = &a.keyRopeOptional;
  }
  if constexpr (requires { a.learnableSinkOptional; }) {
    op.query_scale = &a.dequantScaleQueryOptional;
    op.sinks = &a.learnableSinkOptional;
  }
  return op;
}

FusedInfer from(const IncreFlashAttentionV4Args& a) {
  FusedInfer op;
  op.query = &a.query;
  op.key = &a.key;
  op.value = &a.value;
  op.pse_shift = &a.pseShift;
  op.mask = &a.attenMask;
  op.kv_lengths = &a.actualSeqLengths;
  op.full_quant[0] = &a.dequantScale1;
  op.full_quant[1] = &a.quantScale1;
  op.full_quant[2] = &a.dequantScale2;
  op.quant_scale = &a.quantScale2;
  op.quant_offset = &a.quantOffset2;
  op.antiquant_scale = &a.antiquantScale;
  op.antiquant_offset = &a.antiquantOffset;
  op.block_table = &a.blocktable;
  op.kv_padding = &a.kvPaddingSize;
  op.heads = a.numHeads;
  op.kv_heads = a.numKeyValueHeads;
  op.scale = a.scaleValue;
  op.layout = a.inputLayout;
  op.block_size = a.blockSize;
  op.output = &a.attentionOut;
  return op;
}

// The tiling functions of these operators refuse with their own code, not with that of the parameter checks.
template <typename Body>
void as_tiling_error(Body&& body) {
  try {
    body();
  } catch (const Failure& failure) {
    throw Failure(failure.code() == kParamInvalid ? kInnerTilingError : failure.code(), failure.what());
  }
}

}  // namespace

#define FUSED_INFER(version)                                                       \
  ACLNN_CHECK(version) { as_tiling_error([&] { check(common(a)); }); }             \
  ACLNN_KERNEL(version) { run(common(a)); }                                        \
  ACLNN_WORK(version) { return work_of(common(a)); }                               \
  ACLNN_WORKSPACE(version) { return workspace_of(common(a)); }

FUSED_INFER(FusedInferAttentionScoreV2)
FUSED_INFER(FusedInferAttentionScoreV3)
FUSED_INFER(FusedInferAttentionScoreV4)
FUSED_INFER(FusedInferAttentionScoreV5)

ACLNN_CHECK(IncreFlashAttentionV4) {
  as_tiling_error([&] {
    const FusedInfer op = from(a);
    check(op);
    const int64_t tokens = shape_of(op).query.tokens;
    require(tokens == 1, "query has %lld tokens a sequence, but this operator takes one.", static_cast<long long>(tokens));
  });
}
ACLNN_KERNEL(IncreFlashAttentionV4) { run(from(a)); }
ACLNN_WORK(IncreFlashAttentionV4) { return work_of(from(a)); }

namespace {

// PromptFlashAttention takes single tensors where the others take lists.
struct Prompt {
  TensorList key, value;
  FusedInfer op;
  explicit Prompt(const PromptFlashAttentionV3Args& a) {
    key.tensors = {a.key};
    value.tensors = {a.value};
    op.query = &a.query;
    op.key = &key;
    op.value = &value;
    op.pse_shift = &a.pseShift;
    op.mask = &a.attenMask;
    op.query_lengths = &a.actualSeqLengths;
    op.kv_lengths = &a.actualSeqLengthsKv;
    op.full_quant[0] = &a.deqScale1;
    op.full_quant[1] = &a.quantScale1;
    op.full_quant[2] = &a.deqScale2;
    op.quant_scale = &a.quantScale2;
    op.quant_offset = &a.quantOffset2;
    op.heads = a.numHeads;
    op.kv_heads = a.numKeyValueHeads;
    op.scale = a.scaleValue;
    op.pre_tokens = a.preTokens;
    op.next_tokens = a.nextTokens;
    op.layout = a.inputLayout;
    op.sparse_mode = a.sparseMode;
    op.output = &a.attentionOut;
  }
  Prompt(const Prompt&) = delete;
};

}  // namespace

ACLNN_CHECK(PromptFlashAttentionV3) {
  as_tiling_error([&] { check(Prompt(a).op); });
}
ACLNN_KERNEL(PromptFlashAttentionV3) { run(Prompt(a).op); }
ACLNN_WORK(PromptFlashAttentionV3) { return work_of(Prompt(a).op); }

}  // namespace emulator::aclnn
