// LayerNorm, and FastLayerNorm, which differs in the order of its sums alone (torch_npu calls it for compatible kernels).
// Semantics: hicann/ops-nn, norm/layer_norm_v4/docs and op_host/op_api/aclnn_layer_norm.cpp, aclnn_fast_layer_norm.cpp.
#include <ATen/ops/from_blob.h>

#include <vector>

#include "aclnn/kernels/aten_arguments.h"
#include "aclnn/kernels/contiguous.h"
#include "aclnn/kernels/norm_rows.h"

namespace emulator::aclnn {

namespace {

NormRows rows_of(const TensorView& input, const IntArray& normalized) {
  int64_t cols = 1;
  for (size_t i = 0; i < normalized.size(); ++i) cols *= normalized.data()[i];
  return {cols == 0 ? 0 : input.numel() / cols, cols};
}

void require_float(const TensorView& tensor, const char* name) {
  if (!tensor.defined()) return;
  if (chip().product == kAtlasInference) {
    require_dtype(tensor, name, {ACL_FLOAT16, ACL_FLOAT});
  } else {
    require_dtype(tensor, name, {ACL_FLOAT16, ACL_FLOAT, ACL_BF16});
  }
}

// Weight and bias have the normalized sizes; their type is the input's or float32, and one type for both.
void check_factor(const TensorView& factor, const char* name, const TensorView& input, const IntArray& normalized) {
  if (!factor.defined()) return;
  require_float(factor, name);
  if (factor.dtype != ACL_FLOAT) require_same_dtype(factor, name, input, "input");
  require_sizes(factor, name, Dims(normalized.data(), normalized.size()));
}

void check_statistic(const TensorView& statistic, const char* name, int64_t rows) {
  if (!statistic.defined()) return;
  require_float(statistic, name);
  require(statistic.numel() == rows, "%s has %lld elements, but the input has %lld rows.", name,
          static_cast<long long>(statistic.numel()), static_cast<long long>(rows));
}

template <typename Args>
void check_layer_norm(const Args& a) {
  require_float(a.input, "input");
  const auto axes = static_cast<int>(a.normalizedShape.size());
  bool matches = axes >= 1 && axes <= a.input.rank();
  for (int i = 0; matches && i < axes; ++i) {
    matches = a.input.sizes.back(i) == a.normalizedShape.data()[axes - 1 - i];
  }
  require(matches, "normalizedShape must be the last dimensions of input %s.", to_string(a.input.sizes).c_str());
  check_factor(a.weightOptional, "weightOptional", a.input, a.normalizedShape);
  check_factor(a.biasOptional, "biasOptional", a.input, a.normalizedShape);
  if (a.weightOptional.defined() && a.biasOptional.defined()) {
    require_same_dtype(a.weightOptional, "weightOptional", a.biasOptional, "biasOptional");
  }
  require_same_dtype(a.out, "out", a.input, "input");
  require_sizes(a.out, "out", a.input.sizes);
  const int64_t rows = rows_of(a.input, a.normalizedShape).rows;
  check_statistic(a.meanOutOptional, "meanOutOptional", rows);
  check_statistic(a.rstdOutOptional, "rstdOutOptional", rows);
}

template <typename Args>
void compute_layer_norm(const Args& a) {
  const auto [rows, cols] = rows_of(a.input, a.normalizedShape);
  const DenseInput input(a.input), weight(a.weightOptional), bias(a.biasOptional);
  std::vector<float> mean(rows), rstd(rows);
  LayerNorm norm;
  norm.rows = rows;
  norm.cols = cols;
  norm.dtype = a.input.dtype;
  norm.x = input.data();
  norm.gamma = weight.data();
  norm.beta = bias.data();
  norm.gamma_dtype = a.weightOptional.defined() ? a.weightOptional.dtype : a.biasOptional.dtype;
  norm.epsilon = static_cast<float>(a.eps);
  norm.mean = mean.data();
  norm.rstd = rstd.data();
  {
    const DenseOutput out(a.out);
    norm.y = out.data();
    layer_norm(norm);
  }
  const auto keep = [rows = rows](const TensorView& view, std::vector<float>& values) {
    if (view.defined()) store(view, at::from_blob(values.data(), {rows}).view(in(view).sizes()));
  };
  keep(a.meanOutOptional, mean);
  keep(a.rstdOutOptional, rstd);
}

// One read, one write, eight vector operations an element.
template <typename Args>
Work work_of_layer_norm(const Args& a) {
  const double bytes = static_cast<double>(size_in_bytes(a.input.sizes, a.input.dtype));
  return {.vector_flops = 8.0 * static_cast<double>(a.input.numel()), .read_bytes = bytes, .written_bytes = bytes};
}

}  // namespace

ACLNN_CHECK(LayerNorm) { check_layer_norm(a); }
ACLNN_KERNEL(LayerNorm) { compute_layer_norm(a); }
ACLNN_WORK(LayerNorm) { return work_of_layer_norm(a); }

ACLNN_CHECK(FastLayerNorm) { check_layer_norm(a); }
ACLNN_KERNEL(FastLayerNorm) { compute_layer_norm(a); }
ACLNN_WORK(FastLayerNorm) { return work_of_layer_norm(a); }

}  // namespace emulator::aclnn
