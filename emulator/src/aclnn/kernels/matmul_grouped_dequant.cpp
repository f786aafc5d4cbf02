// int8 experts on Ascend 310P: rows are quantized by their own scale, multiplied by their group's weight and scaled back
// (aclnnQuantGroupedMatmulDequant and WeightNZ). No document is published; the semantics are those of
// aclnnQuantMatmulDequant (hicann/ops-nn, matmul/quant_matmul_dequant/docs) for ranges of rows, as op-plugin calls it.
//
// Implemented: scales by row from the rows themselves, no bias, no smoothing. Anything else is refused as not implemented.
#include <algorithm>
#include <vector>

#include "aclnn/kernels/contiguous.h"
#include "aclnn/kernels/quant_parameters.h"
#include "aclnn/kernels/quantize_row.h"
#include "aclnn_arguments.h"
#include "math/convert.h"
#include "math/gemm.h"

namespace emulator::aclnn {

namespace {

constexpr int64_t kAlignment = 16;  // of k and n

bool given(const TensorView& tensor) { return tensor.defined() && tensor.numel() > 0; }

template <typename Args>
void check(const Args& a) {
  if (given(a.biasOptional) || given(a.xScaleOptional) || given(a.xOffsetOptional) || given(a.smoothScaleOptional)) {
    fail(kRuntimeError, "the emulator implements rows quantized by their own scale only: no bias, xScale, xOffset or smoothScale.");
  }
  require(a.xQuantMode == "pertoken", "xQuantMode is '%s', but dynamic quantization supports pertoken only.", a.xQuantMode.c_str());
  require(a.transposeWeight, "transposeWeight must be true.");
  require_rank(a.x, "x", 2, 2);
  require_rank(a.weight, "weight", 3, 3);
  require_dtype(a.x, "x", {ACL_FLOAT16});
  require_dtype(a.weight, "weight", {ACL_INT8});
  require_dtype(a.weightScale, "weightScale", {ACL_FLOAT});
  require_dtype(a.groupList, "groupList", {ACL_INT64});
  require_dtype(a.out, "out", {ACL_FLOAT16});
  const int64_t groups = a.weight.sizes[0], n = a.weight.sizes[1], k = a.weight.sizes[2];
  require(n % kAlignment == 0 && k % kAlignment == 0, "weight is %s, but n and k must be multiples of 16.",
          to_string(a.weight.sizes).c_str());
  require(a.x.sizes[1] == k, "x has %lld columns and each weight %lld, but they must be equal.",
          static_cast<long long>(a.x.sizes[1]), static_cast<long long>(k));
  require_sizes(a.weightScale, "weightScale", {groups, n});
  require_sizes(a.groupList, "groupList", {groups});
  require_sizes(a.out, "out", {a.x.sizes[0], n});
  if (a.weight.is_fractal_nz()) {
    bool transposed = false;
    fractal_matrix(a.weight, &transposed);
    require(!transposed, "weight must be stored as [groups, n, k].");
  } else {
    require(a.weight.is_contiguous(), "weight must be contiguous.");
  }
}

// Rows behind the last group keep what the output's memory held, as on hardware.
template <typename Args>
void run(const Args& a) {
  const DenseInput x(a.x), weight_scale(a.weightScale), group_list(a.groupList);
  const DenseOutput out(a.out);
  const int64_t rows = a.x.sizes[0], groups = a.weight.sizes[0], n = a.weight.sizes[1], k = a.weight.sizes[2];
  std::vector<int8_t> quantized(rows * k);
  std::vector<float> row_scale(rows), buffer(k);
  for (int64_t r = 0; r < rows; ++r) {
    to_float(x.template data_as<uint16_t>() + r * k, ACL_FLOAT16, buffer.data(), k);
    row_scale[r] = quantize_row(buffer.data(), nullptr, k, quantized.data() + r * k);
  }
  bool transposed = false;
  const FractalMatrix matrix = a.weight.is_fractal_nz() ? fractal_matrix(a.weight, &transposed) : FractalMatrix{};
  int64_t begin = 0;
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t end = group_list.template data_as<int64_t>()[group];
    if (end < begin || end > rows) {
      fail(kAicoreException, "groupList ends group %lld at row %lld, but x has %lld rows.", static_cast<long long>(group),
           static_cast<long long>(end), static_cast<long long>(rows));
    }
    std::vector<int32_t> sums((end - begin) * n);
    const Int8Operand operand = a.weight.is_fractal_nz()
                                    ? int8_fractal(matrix, true, group)
                                    : int8_row_major_transposed(a.weight.template data_as<int8_t>() + group * n * k, k);
    if (end > begin) gemm_int8({end - begin, n, k, quantized.data() + begin * k, k, operand, sums.data(), n});
    const auto* scale = weight_scale.template data_as<float>() + group * n;
    const Dequantization dequantization{{scale, scale + n}, nullptr, {}};
    for (int64_t row = begin; row < end; ++row) {
      dequantization.apply(sums.data() + (row - begin) * n, n, row_scale[row], out.template data_as<uint16_t>() + row * n, ACL_FLOAT16);
    }
    begin = end;
  }
}

template <typename Args>
Work work_of(const Args& a) {
  const double rows = static_cast<double>(a.x.sizes[0]);
  Work work;
  work.int8_cube = true;
  work.cube_flops = 2.0 * rows * static_cast<double>(a.weight.sizes[1] * a.weight.sizes[2]);
  work.vector_flops = 3.0 * static_cast<double>(a.x.numel());
  const double used = std::min(1.0, rows / static_cast<double>(a.weight.sizes[0]));  // an upper bound, see GroupedMatmul
  work.read_bytes = static_cast<double>(size_in_bytes(a.x.sizes, a.x.dtype)) +
                    used * static_cast<double>(size_in_bytes(a.weight.sizes, a.weight.dtype));
  work.written_bytes = static_cast<double>(size_in_bytes(a.out.sizes, a.out.dtype));
  return work;
}

}  // namespace

ACLNN_CHECK(QuantGroupedMatmulDequant) { check(a); }
ACLNN_KERNEL(QuantGroupedMatmulDequant) { run(a); }
ACLNN_WORK(QuantGroupedMatmulDequant) { return work_of(a); }

ACLNN_CHECK(QuantGroupedMatmulDequantWeightNZ) {
  require(a.weight.is_fractal_nz(), "weight has format %s, but must be FRACTAL_NZ.", format_name(a.weight.format));
  check(a);
}
ACLNN_KERNEL(QuantGroupedMatmulDequantWeightNZ) { run(a); }
ACLNN_WORK(QuantGroupedMatmulDequantWeightNZ) { return work_of(a); }

}  // namespace emulator::aclnn
