// Reductions over dimensions, and cumulative forms.
#include <ATen/ops/all.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/amin.h>
#include <ATen/ops/any.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/argmin.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/cummax.h>
#include <ATen/ops/cummin.h>
#include <ATen/ops/cumprod.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/histc.h>
#include <ATen/ops/kthvalue.h>
#include <ATen/ops/linalg_cross.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/max.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/median.h>
#include <ATen/ops/min.h>
#include <ATen/ops/nanmedian.h>
#include <ATen/ops/nansum.h>
#include <ATen/ops/norm.h>
#include <ATen/ops/prod.h>
#include <ATen/ops/std.h>
#include <ATen/ops/std_mean.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/trace.h>
#include <ATen/ops/var.h>
#include <ATen/ops/var_mean.h>

#include "aclnn/kernels/aten_arguments.h"
#include "silicon/rules.h"

namespace emulator::aclnn {

namespace {

// The sizes after reducing `dims` (none: all of them).
Dims reduced_sizes(const TensorView& self, const IntArray& dims, bool keepdim) {
  bool reduced[Dims::kMaxRank] = {};
  for (int64_t dim : dims) reduced[require_dim(dim, self, "dim")] = true;
  Dims sizes;
  for (int i = 0; i < self.rank(); ++i) {
    const bool is_reduced = dims.empty() || reduced[i];
    if (is_reduced && !keepdim) continue;
    sizes.push_back(is_reduced ? 1 : self.sizes[i]);
  }
  return sizes;
}

void check_reduction(const TensorView& self, const IntArray& dims, bool keepdim, const TensorView& out) {
  require_sizes(out, "out", reduced_sizes(self, dims, keepdim));
}

void check_reduction(const TensorView& self, int64_t dim, bool keepdim, const TensorView& out) {
  IntArray dims;
  dims.assign(&dim, 1);
  require_sizes(out, "out", reduced_sizes(self, dims, keepdim));
}

// For functions that give (values, indices): the caller chooses the type of its indices, ATen knows int64 only.
void store_pair(const TensorView& values, const TensorView& indices, const std::tuple<at::Tensor, at::Tensor>& result) {
  store(values, std::get<0>(result));
  store(indices, std::get<1>(result));
}

// ATen rounds a product of halves after every factor; the chip does so once.
at::ScalarType product_dtype(const TensorView& out) {
  const bool is_half = out.dtype == ACL_FLOAT16 || out.dtype == ACL_BF16;
  return is_half ? at::kFloat : aten_dtype(out.dtype);
}

std::optional<at::Scalar> correction(int64_t value) { return at::Scalar(value); }

}  // namespace

ACLNN_CHECK(ReduceSum) { check_reduction(a.self, a.dims, a.keepDims, a.out); }
ACLNN_KERNEL(ReduceSum) {
  at::sum_out(out(a.out), in(a.self), ints_or_none(a.dims), a.keepDims, aten_dtype(a.out.dtype));
}
ACLNN_WORK(ReduceSum) {
  constexpr double kAiCpuElementNs = 10;  // assumed: an order of magnitude
  const auto bytes = [](const TensorView& tensor) { return static_cast<double>(size_in_bytes(tensor.sizes, tensor.dtype)); };
  Work work{.vector_flops = static_cast<double>(a.self.numel()), .read_bytes = bytes(a.self), .written_bytes = bytes(a.out)};
  if (a.out.dtype == ACL_INT32 && enforces(Rule::kInt32Sum)) {
    work.ai_cpu_ns = kAiCpuLaunchNs + kAiCpuElementNs * static_cast<double>(a.self.numel());
  }
  return work;
}
ACLNN_CHECK(ReduceNansum) { check_reduction(a.self, a.dim, a.keepDim, a.out); }
ACLNN_KERNEL(ReduceNansum) {
  at::nansum_out(out(a.out), in(a.self), ints_or_none(a.dim), a.keepDim, aten_dtype(a.out.dtype));
}
ACLNN_CHECK(Mean) {
  require(is_floating(a.out.dtype) || is_complex(a.out.dtype), "out is %s, but a mean is floating-point.",
          dtype_name(a.out.dtype));
  check_reduction(a.self, a.dim, a.keepDim, a.out);
}
ACLNN_KERNEL(Mean) {
  at::mean_out(out(a.out), in(a.self), ints_or_none(a.dim), a.keepDim, aten_dtype(a.out.dtype));
}
ACLNN_KERNEL(Prod) { store(a.out, at::prod(in(a.self), product_dtype(a.out))); }
ACLNN_CHECK(ProdDim) { check_reduction(a.self, a.dim, a.keepDim, a.out); }
ACLNN_KERNEL(ProdDim) { store(a.out, at::prod(in(a.self), a.dim, a.keepDim, product_dtype(a.out))); }
ACLNN_CHECK(LogSumExp) { check_reduction(a.self, a.dim, a.keepDim, a.out); }
ACLNN_KERNEL(LogSumExp) { at::logsumexp_out(out(a.out), in(a.self), ints(a.dim), a.keepDim); }
ACLNN_KERNEL(Trace) { store(a.out, at::trace(in(a.self))); }

ACLNN_CHECK(All) { check_reduction(a.self, a.dim, a.keepdim, a.out); }
ACLNN_KERNEL(All) { store(a.out, at::all(in(a.self), ints_or_none(a.dim), a.keepdim)); }
ACLNN_CHECK(Any) { check_reduction(a.self, a.dim, a.keepdim, a.out); }
ACLNN_KERNEL(Any) { store(a.out, at::any(in(a.self), ints_or_none(a.dim), a.keepdim)); }

ACLNN_KERNEL(Max) { store(a.out, at::max(in(a.self))); }
ACLNN_KERNEL(Min) { store(a.out, at::min(in(a.self))); }
ACLNN_CHECK(MaxDim) { check_reduction(a.self, a.dim, a.keepdim, a.out); }
ACLNN_KERNEL(MaxDim) { store_pair(a.out, a.indices, at::max(in(a.self), a.dim, a.keepdim)); }
ACLNN_CHECK(MinDim) { check_reduction(a.self, a.dim, a.keepdim, a.out); }
ACLNN_KERNEL(MinDim) { store_pair(a.out, a.indices, at::min(in(a.self), a.dim, a.keepdim)); }
ACLNN_CHECK(Amax) { check_reduction(a.self, a.dim, a.keepDim, a.out); }
ACLNN_KERNEL(Amax) { at::amax_out(out(a.out), in(a.self), ints(a.dim), a.keepDim); }
ACLNN_CHECK(Amin) { check_reduction(a.self, a.dim, a.keepDim, a.out); }
ACLNN_KERNEL(Amin) { at::amin_out(out(a.out), in(a.self), ints(a.dim), a.keepDim); }
ACLNN_CHECK(Aminmax) {
  check_reduction(a.self, a.dim, a.keepDim, a.minOut), check_reduction(a.self, a.dim, a.keepDim, a.maxOut);
}
ACLNN_KERNEL(Aminmax) {
  at::amin_out(out(a.minOut), in(a.self), ints(a.dim), a.keepDim);
  at::amax_out(out(a.maxOut), in(a.self), ints(a.dim), a.keepDim);
}
ACLNN_KERNEL(AminmaxAll) {
  store(a.minOut, at::min(in(a.self)));
  store(a.maxOut, at::max(in(a.self)));
}
ACLNN_CHECK(AminmaxDim) { check_reduction(a.self, a.dim, a.keepDim, a.minOut); }
ACLNN_KERNEL(AminmaxDim) {
  at::amin_out(out(a.minOut), in(a.self), a.dim, a.keepDim);
  at::amax_out(out(a.maxOut), in(a.self), a.dim, a.keepDim);
}
ACLNN_CHECK(ArgMax) { check_reduction(a.self, a.dim, a.keepdim, a.out); }
ACLNN_KERNEL(ArgMax) { store(a.out, at::argmax(in(a.self), a.dim, a.keepdim)); }
ACLNN_CHECK(ArgMin) { check_reduction(a.self, a.dim, a.keepdim, a.out); }
ACLNN_KERNEL(ArgMin) { store(a.out, at::argmin(in(a.self), a.dim, a.keepdim)); }

ACLNN_KERNEL(Median) { store(a.valuesOut, at::median(in(a.self))); }
ACLNN_CHECK(MedianDim) {
  check_reduction(a.self, a.dim, a.keepDim, a.valuesOut), check_reduction(a.self, a.dim, a.keepDim, a.indicesOut);
}
ACLNN_KERNEL(MedianDim) { store_pair(a.valuesOut, a.indicesOut, at::median(in(a.self), a.dim, a.keepDim)); }
ACLNN_KERNEL(NanMedian) { store(a.out, at::nanmedian(in(a.self))); }
ACLNN_CHECK(NanMedianDim) {
  check_reduction(a.self, a.dim, a.keepDim, a.valuesOut), check_reduction(a.self, a.dim, a.keepDim, a.indicesOut);
}
ACLNN_KERNEL(NanMedianDim) { store_pair(a.valuesOut, a.indicesOut, at::nanmedian(in(a.self), a.dim, a.keepDim)); }
ACLNN_CHECK(Kthvalue) {
  check_reduction(a.self, a.dim, a.keepdim, a.valuesOut), check_reduction(a.self, a.dim, a.keepdim, a.indicesOut);
  const int64_t most = a.self.rank() == 0 ? 1 : a.self.sizes[static_cast<int>(require_dim(a.dim, a.self, "dim"))];
  require(a.k >= 1 && a.k <= most, "k is %lld, but must be 1 to %lld.", static_cast<long long>(a.k), static_cast<long long>(most));
}
ACLNN_KERNEL(Kthvalue) { store_pair(a.valuesOut, a.indicesOut, at::kthvalue(in(a.self), a.k, a.dim, a.keepdim)); }

ACLNN_CHECK(VarCorrection) { check_reduction(a.self, a.dim, a.keepdim, a.out); }
ACLNN_CHECK(VarMean) {
  check_reduction(a.self, a.dim, a.keepdim, a.varOut), check_reduction(a.self, a.dim, a.keepdim, a.meanOut);
}
ACLNN_CHECK(Std) { check_reduction(a.self, a.dim, a.keepdim, a.out); }
ACLNN_CHECK(StdMeanCorrection) {
  check_reduction(a.self, a.dim, a.keepdim, a.stdOut), check_reduction(a.self, a.dim, a.keepdim, a.meanOut);
}
ACLNN_CHECK(Norm) { check_reduction(a.self, a.dim, a.keepdim, a.out); }
ACLNN_CHECK(LinalgVectorNorm) { check_reduction(a.self, a.dims, a.keepDims, a.out); }
ACLNN_KERNEL(VarCorrection) {
  store(a.out, at::var(in(a.self), ints_or_none(a.dim), correction(a.correction), a.keepdim));
}
ACLNN_KERNEL(VarMean) {
  const auto [variance, mean] = at::var_mean(in(a.self), ints_or_none(a.dim), correction(a.correction), a.keepdim);
  store(a.varOut, variance);
  store(a.meanOut, mean);
}
ACLNN_KERNEL(Std) { store(a.out, at::std(in(a.self), ints_or_none(a.dim), correction(a.correction), a.keepdim)); }
ACLNN_KERNEL(StdMeanCorrection) {
  const auto [deviation, mean] = at::std_mean(in(a.self), ints_or_none(a.dim), correction(a.correction), a.keepdim);
  store(a.stdOut, deviation);
  store(a.meanOut, mean);
}
ACLNN_KERNEL(Norm) { store(a.out, at::norm(in(a.self), scalar(a.pScalar), ints(a.dim), a.keepdim)); }
ACLNN_KERNEL(LinalgVectorNorm) {
  store(a.out, at::linalg_vector_norm(in(a.self), scalar(a.ord), ints_or_none(a.dims), a.keepDims,
                                      aten_dtype(a.out.dtype)));
}
ACLNN_KERNEL(LinalgCross) { at::linalg_cross_out(out(a.out), in(a.self), in(a.other), a.dim); }

ACLNN_CHECK(Cumsum) {
  require_dim(a.dim, a.self, "dim");
  require_sizes(a.out, "out", a.self.sizes);
}
ACLNN_KERNEL(Cumsum) { at::cumsum_out(out(a.out), in(a.self), a.dim, aten_dtype(a.out.dtype)); }
ACLNN_CHECK(Cumprod) {
  require_dim(a.dim.to_int64(), a.input, "dim");
  require_sizes(a.out, "out", a.input.sizes);
}
ACLNN_KERNEL(Cumprod) { at::cumprod_out(out(a.out), in(a.input), a.dim.to_int64(), aten_dtype(a.out.dtype)); }
ACLNN_KERNEL(Cummax) { store_pair(a.valuesOut, a.indicesOut, at::cummax(in(a.self), a.dim)); }
ACLNN_KERNEL(Cummin) { store_pair(a.valuesOut, a.indicesOut, at::cummin(in(a.self), a.dim)); }

ACLNN_CHECK(Histc) {
  require(a.bins > 0, "bins is %lld, but must be positive.", static_cast<long long>(a.bins));
  require_sizes(a.out, "out", {a.bins});
}
ACLNN_KERNEL(Histc) { store(a.out, at::histc(in(a.self), a.bins, scalar(a.min), scalar(a.max))); }
ACLNN_CHECK(Bincount) {
  require(is_integral(a.self.dtype) && a.self.rank() == 1, "self is %s %s, but must be a vector of integers.",
          dtype_name(a.self.dtype), to_string(a.self.sizes).c_str());
  require(a.minlength >= 0, "minlength is %lld, but must not be negative.", static_cast<long long>(a.minlength));
  if (a.weights.defined() && a.weights.numel() > 0) require_sizes(a.weights, "weights", a.self.sizes);
}
ACLNN_KERNEL(Bincount) { store(a.out, at::bincount(in(a.self), in_or_none(a.weights), a.minlength)); }

}  // namespace emulator::aclnn
