#include "aclnn/kernels/norm_rows.h"

namespace emulator::aclnn {

NormRows norm_rows(const TensorView& x, const TensorView& gamma) {
  const int64_t cols = gamma.numel();
  return {cols == 0 ? 0 : x.numel() / cols, cols};
}

void check_norm_rows(const TensorView& x, const TensorView& gamma) {
  int leading = 0;
  while (leading < gamma.rank() - 1 && gamma.sizes[leading] == 1) ++leading;
  bool matches = gamma.rank() >= 1 && gamma.rank() - leading <= x.rank();
  for (int i = 0; matches && i < gamma.rank() - leading; ++i) matches = gamma.sizes.back(i) == x.sizes.back(i);
  if (!matches) {
    fail(kInnerTilingError, "gamma has sizes %s, but must equal the last dimensions of x %s.",
         to_string(gamma.sizes).c_str(), to_string(x.sizes).c_str());
  }
  const int64_t row_bytes = gamma.sizes.back(0) * element_bits(x.dtype) / 8;
  if (chip().product == kAtlasInference && row_bytes < 32) {
    fail(kInnerTilingError, "the last dimension of x takes %lld bytes, but must take at least 32 on %s.",
         static_cast<long long>(row_bytes), chip().soc_version);
  }
}

void check_like(const TensorView& tensor, const char* name, const TensorView& like, const char* like_name) {
  if (!tensor.defined()) return;
  require_same_dtype(tensor, name, like, like_name);
  require_sizes(tensor, name, like.sizes);
}

void check_added(const TensorView& x1, const TensorView& x2, const TensorView& gamma) {
  require_dtype(x1, "x1", {ACL_FLOAT16, ACL_BF16, ACL_FLOAT});
  check_like(x2, "x2", x1, "x1");
  require_same_dtype(gamma, "gamma", x1, "x1");
  check_norm_rows(x1, gamma);
}

RmsNorm added_norm(const TensorView& x1, const TensorView& gamma, double epsilon) {
  RmsNorm norm;
  norm.rows = norm_rows(x1, gamma).rows;
  norm.cols = gamma.numel();
  norm.dtype = x1.dtype;
  norm.gamma_dtype = gamma.dtype;
  norm.epsilon = static_cast<float>(epsilon);
  norm.round_sum = x1.dtype == ACL_FLOAT16;
  norm.round_before_gamma = x1.dtype != ACL_FLOAT;
  return norm;
}

}  // namespace emulator::aclnn
