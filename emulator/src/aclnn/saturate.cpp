#include "aclnn/saturate.h"

#include <ATen/ops/nan_to_num.h>

#include <cstdint>

#include "aclnn/aten_view.h"
#include "silicon/rules.h"

namespace emulator::aclnn {
namespace {

// Bits of an IEEE type: where all exponent bits are set the value is no finite number.
template <typename Word, Word kExponent, Word kMantissa>
bool saturate_words(void* data, int64_t count) {
  auto* words = static_cast<Word*>(data);
  bool any = false;
  for (int64_t i = 0; i < count; ++i) any |= (words[i] & kExponent) == kExponent;
  if (!any) [[likely]] return false;
  constexpr Word kSign = static_cast<Word>(~(kExponent | kMantissa));
  for (int64_t i = 0; i < count; ++i) {
    if ((words[i] & kExponent) != kExponent) continue;
    const bool nan = (words[i] & kMantissa) != 0;
    words[i] = nan ? 0 : static_cast<Word>((words[i] & kSign) | (kExponent - kMantissa - 1) | kMantissa);
  }
  return true;
}

bool saturate(const TensorView& tensor) {
  if (!tensor.defined() || tensor.base == nullptr || tensor.numel() == 0 || tensor.is_fractal_nz()) return false;
  if (tensor.dtype != ACL_FLOAT16 && tensor.dtype != ACL_FLOAT) return false;
  if (!tensor.is_contiguous()) {
    as_aten(tensor).nan_to_num_(0.0);  // infinities become the type's largest number
    return false;
  }
  if (tensor.dtype == ACL_FLOAT16) return saturate_words<uint16_t, 0x7c00, 0x03ff>(tensor.data(), tensor.numel());
  return saturate_words<uint32_t, 0x7f800000, 0x007fffff>(tensor.data(), tensor.numel());
}

}  // namespace

void saturate_results(const Operator& op, const void* args) {
  bool any = false;
  for (size_t i = 0; i < op.parameter_count; ++i) {
    const Parameter& parameter = op.parameters[i];
    if (!parameter.output) continue;
    const void* field = static_cast<const char*>(args) + parameter.offset;
    if (parameter.kind == ParameterKind::kTensor) any |= saturate(*static_cast<const TensorView*>(field));
    if (parameter.kind != ParameterKind::kTensorList) continue;
    for (const TensorView& tensor : *static_cast<const TensorList*>(field)) any |= saturate(tensor);
  }
  if (any) tell(Rule::kSaturation, op.name, "a result is infinite or NaN: the largest finite number, or 0, takes its place");
}

}  // namespace emulator::aclnn
