// Convolution, pooling, resampling and padding of images.
#include <ATen/ops/_adaptive_avg_pool2d.h>
#include <ATen/ops/_adaptive_avg_pool3d.h>
#include <ATen/ops/_upsample_bicubic2d_aa.h>
#include <ATen/ops/_upsample_bilinear2d_aa.h>
#include <ATen/ops/_upsample_nearest_exact1d.h>
#include <ATen/ops/_upsample_nearest_exact2d.h>
#include <ATen/ops/_upsample_nearest_exact3d.h>
#include <ATen/ops/adaptive_max_pool2d.h>
#include <ATen/ops/adaptive_max_pool3d.h>
#include <ATen/ops/affine_grid_generator.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/avg_pool3d.h>
#include <ATen/ops/conv_tbc.h>
#include <ATen/ops/convolution.h>
#include <ATen/ops/grid_sampler_2d.h>
#include <ATen/ops/grid_sampler_3d.h>
#include <ATen/ops/im2col.h>
#include <ATen/ops/max_pool2d_with_indices.h>
#include <ATen/ops/max_pool3d_with_indices.h>
#include <ATen/ops/max_unpool2d.h>
#include <ATen/ops/max_unpool3d.h>
#include <ATen/ops/reflection_pad1d.h>
#include <ATen/ops/reflection_pad2d.h>
#include <ATen/ops/reflection_pad3d.h>
#include <ATen/ops/replication_pad1d.h>
#include <ATen/ops/replication_pad2d.h>
#include <ATen/ops/replication_pad3d.h>
#include <ATen/ops/upsample_bicubic2d.h>
#include <ATen/ops/upsample_bilinear2d.h>
#include <ATen/ops/upsample_linear1d.h>
#include <ATen/ops/upsample_nearest1d.h>
#include <ATen/ops/upsample_nearest2d.h>
#include <ATen/ops/upsample_nearest3d.h>
#include <ATen/ops/upsample_trilinear3d.h>
#include <ATen/ops/zeros.h>

#include "aclnn/kernels/aten_arguments.h"

namespace emulator::aclnn {

namespace {

// Hardware accumulates in fp32, and ATen has few of these functions for 16-bit types on a CPU.
at::Tensor wide(const TensorView& view) {
  const at::Tensor tensor = in(view);
  const auto type = tensor.scalar_type();
  return type == at::kHalf || type == at::kBFloat16 ? tensor.to(at::kFloat) : tensor;
}

std::optional<at::Tensor> wide_or_none(const TensorView& view) {
  return view.defined() ? std::optional<at::Tensor>(wide(view)) : std::nullopt;
}

// 0 stands for "derive it from the sizes".
std::optional<double> scale(double value) { return value > 0 ? std::optional<double>(value) : std::nullopt; }
std::optional<int64_t> divisor(int64_t value) { return value != 0 ? std::optional<int64_t>(value) : std::nullopt; }

// Images [N, C, ..] of other sizes, as many as outputSize has.
void check_resampled(const TensorView& self, const IntArray& sizes, const TensorView& out) {
  const auto count = static_cast<int>(sizes.size());
  require(self.rank() == count + 2, "self has %d dimensions, but outputSize has %d.", self.rank(), count);
  Dims expected = self.sizes;
  for (int i = 0; i < count; ++i) expected[i + 2] = sizes[i];
  require_sizes(out, "out", expected);
}

// Padding counts from the last dimension: before and behind it, before and behind the one in front of it.
void check_padded(const TensorView& self, const IntArray& padding, int dimensions, const TensorView& out) {
  require(static_cast<int>(padding.size()) == 2 * dimensions, "padding has %zu elements, but must have %d.", padding.size(),
          2 * dimensions);
  require_rank(self, "self", dimensions + 1, dimensions + 2);
  Dims expected = self.sizes;
  for (int i = 0; i < dimensions; ++i) expected[self.rank() - 1 - i] += padding[2 * i] + padding[2 * i + 1];
  require_sizes(out, "out", expected);
}

void store_pair(const TensorView& values, const TensorView& indices, const std::tuple<at::Tensor, at::Tensor>& result) {
  store(values, std::get<0>(result));
  if (indices.defined()) store(indices, std::get<1>(result));
}

Work convolution_work(const TensorView& input, const TensorView& weight, const TensorView& output) {
  const double multiplications = static_cast<double>(output.numel()) * weight.numel() / weight.sizes[0];
  return {.cube_flops = 2 * multiplications,
          .read_bytes = static_cast<double>(size_in_bytes(input.sizes, input.dtype) +
                                            size_in_bytes(weight.sizes, weight.dtype)),
          .written_bytes = static_cast<double>(size_in_bytes(output.sizes, output.dtype))};
}

}  // namespace

ACLNN_CHECK(Convolution) {
  require_rank(a.input, "input", 2, 5);
  require_same_dtype(a.input, "input", a.weight, "weight");
  require(a.groups > 0, "groups is %lld, but must be positive.", static_cast<long long>(a.groups));
  const int64_t channels = a.weight.sizes[a.transposed ? 0 : 1] * (a.transposed ? 1 : a.groups);
  const int64_t given = a.input.sizes[a.input.rank() == a.weight.rank() ? 1 : 0];
  require(channels == given, "weight takes %lld channels, but input has %lld.", static_cast<long long>(channels),
          static_cast<long long>(given));
}
ACLNN_KERNEL(Convolution) {
  store(a.output, at::convolution(wide(a.input), wide(a.weight), wide_or_none(a.bias), ints(a.stride), ints(a.padding),
                                  ints(a.dilation), a.transposed, ints(a.outputPadding), a.groups));
}
ACLNN_WORK(Convolution) { return convolution_work(a.input, a.weight, a.output); }
ACLNN_KERNEL(ConvDepthwise2d) {
  store(a.out, at::convolution(wide(a.self), wide(a.weight), wide_or_none(a.bias), ints(a.stride), ints(a.padding),
                               ints(a.dilation), false, {0, 0}, a.self.sizes[1]));
}
ACLNN_WORK(ConvDepthwise2d) { return convolution_work(a.self, a.weight, a.out); }
ACLNN_KERNEL(ConvTbc) {
  const at::Tensor bias = a.bias.defined() ? wide(a.bias) : at::zeros({a.weight.sizes[2]});
  store(a.output, at::conv_tbc(wide(a.self), wide(a.weight), bias, a.pad));
}
ACLNN_KERNEL(Im2col) {
  store(a.out,
        at::im2col(wide(a.self), ints(a.kernelSize), ints(a.dilation), ints(a.padding), ints(a.stride)));
}

ACLNN_KERNEL(AvgPool2d) {
  store(a.out, at::avg_pool2d(wide(a.self), ints(a.kernelSize), ints(a.strides), ints(a.paddings), a.ceilMode,
                              a.countIncludePad, divisor(a.divisorOverride)));
}
ACLNN_KERNEL(AvgPool3d) {
  store(a.out, at::avg_pool3d(wide(a.self), ints(a.kernelSize), ints(a.stride), ints(a.padding), a.ceilMode,
                              a.countIncludePad, divisor(a.divisorOverride)));
}
ACLNN_KERNEL(AdaptiveAvgPool2d) { store(a.out, at::_adaptive_avg_pool2d(wide(a.self), ints(a.outputSize))); }
ACLNN_KERNEL(AdaptiveAvgPool3d) { store(a.out, at::_adaptive_avg_pool3d(wide(a.self), ints(a.outputSize))); }
ACLNN_KERNEL(AdaptiveMaxPool2d) {
  store_pair(a.outputOut, a.indicesOut, at::adaptive_max_pool2d(wide(a.self), ints(a.outputSize)));
}
ACLNN_KERNEL(AdaptiveMaxPool3d) {
  store_pair(a.outputOut, a.indicesOut, at::adaptive_max_pool3d(wide(a.self), ints(a.outputSize)));
}
ACLNN_KERNEL(MaxPool2dWithIndices) {
  store_pair(a.out, a.indices,
             at::max_pool2d_with_indices(wide(a.self), ints(a.kernelSize), ints(a.stride), ints(a.padding),
                                         ints(a.dilation), a.ceilMode));
}
// Its `indices` is a bit mask of a private layout that only the backward operator reads, which is not emulated.
ACLNN_KERNEL(MaxPool2dWithMask) {
  store(a.out, std::get<0>(at::max_pool2d_with_indices(wide(a.self), ints(a.kernelSize), ints(a.stride),
                                                       ints(a.padding), ints(a.dilation), a.ceilMode)));
}
ACLNN_KERNEL(MaxPool3dWithArgmax) {
  store_pair(a.out, a.indices,
             at::max_pool3d_with_indices(wide(a.self), ints(a.kernelSize), ints(a.stride), ints(a.padding),
                                         ints(a.dilation), a.ceilMode));
}
ACLNN_KERNEL(MaxUnpool2d) {
  store(a.out, at::max_unpool2d(wide(a.self), in(a.indices).to(at::kLong), ints(a.outputSize)));
}
ACLNN_KERNEL(MaxUnpool3d) {
  store(a.outRef, at::max_unpool3d(wide(a.self), in(a.indices).to(at::kLong), ints(a.outputSize), ints(a.stride),
                                   ints(a.padding)));
}

ACLNN_CHECK(UpsampleNearest1d) { check_resampled(a.self, a.outputSize, a.out); }
ACLNN_KERNEL(UpsampleNearest1d) { store(a.out, at::upsample_nearest1d(wide(a.self), ints(a.outputSize))); }
ACLNN_CHECK(UpsampleNearest1dV2) { check_resampled(a.self, a.outputSize, a.out); }
ACLNN_KERNEL(UpsampleNearest1dV2) {
  store(a.out, at::upsample_nearest1d(wide(a.self), ints(a.outputSize), scale(a.scaleL)));
}
ACLNN_CHECK(UpsampleNearest2d) { check_resampled(a.self, a.outputSize, a.out); }
ACLNN_KERNEL(UpsampleNearest2d) { store(a.out, at::upsample_nearest2d(wide(a.self), ints(a.outputSize))); }
ACLNN_CHECK(UpsampleNearest2dV2) { check_resampled(a.self, a.outputSize, a.out); }
ACLNN_KERNEL(UpsampleNearest2dV2) {
  store(a.out, at::upsample_nearest2d(wide(a.self), ints(a.outputSize), scale(a.scalesH), scale(a.scalesW)));
}
ACLNN_CHECK(UpsampleNearest3d) { check_resampled(a.self, a.outputSize, a.out); }
ACLNN_KERNEL(UpsampleNearest3d) {
  store(a.out, at::upsample_nearest3d(wide(a.self), ints(a.outputSize), scale(a.scalesD), scale(a.scalesH),
                                      scale(a.scalesW)));
}
ACLNN_CHECK(UpsampleNearestExact1d) { check_resampled(a.self, a.outputSize, a.out); }
ACLNN_KERNEL(UpsampleNearestExact1d) {
  store(a.out, at::_upsample_nearest_exact1d(wide(a.self), ints(a.outputSize), scale(a.scales)));
}
ACLNN_CHECK(UpsampleNearestExact2d) { check_resampled(a.self, a.outputSize, a.out); }
ACLNN_KERNEL(UpsampleNearestExact2d) {
  store(a.out, at::_upsample_nearest_exact2d(wide(a.self), ints(a.outputSize), scale(a.scalesH), scale(a.scalesW)));
}
ACLNN_CHECK(UpsampleNearestExact3d) { check_resampled(a.self, a.outputSize, a.out); }
ACLNN_KERNEL(UpsampleNearestExact3d) {
  store(a.out, at::_upsample_nearest_exact3d(wide(a.self), ints(a.outputSize), scale(a.scalesD), scale(a.scalesH),
                                             scale(a.scalesW)));
}
ACLNN_CHECK(UpsampleLinear1d) { check_resampled(a.self, a.outputSize, a.out); }
ACLNN_KERNEL(UpsampleLinear1d) {
  store(a.out, at::upsample_linear1d(wide(a.self), ints(a.outputSize), a.alignCorners, scale(a.scale)));
}
ACLNN_CHECK(UpsampleBilinear2d) { check_resampled(a.self, a.outputSize, a.out); }
ACLNN_KERNEL(UpsampleBilinear2d) {
  store(a.out, at::upsample_bilinear2d(wide(a.self), ints(a.outputSize), a.alignCorners, scale(a.scalesH),
                                       scale(a.scalesW)));
}
ACLNN_CHECK(UpsampleBilinear2dAA) { check_resampled(a.input, a.outputSize, a.out); }
ACLNN_KERNEL(UpsampleBilinear2dAA) {
  store(a.out, at::_upsample_bilinear2d_aa(wide(a.input), ints(a.outputSize), a.alignCorners, scale(a.scalesH),
                                           scale(a.scalesW)));
}
ACLNN_CHECK(UpsampleBicubic2d) { check_resampled(a.self, a.outputSize, a.out); }
ACLNN_KERNEL(UpsampleBicubic2d) {
  store(a.out, at::upsample_bicubic2d(wide(a.self), ints(a.outputSize), a.alignCorners, scale(a.scalesH),
                                      scale(a.scalesW)));
}
ACLNN_CHECK(UpsampleBicubic2dAA) { check_resampled(a.x, a.outputSize, a.out); }
ACLNN_KERNEL(UpsampleBicubic2dAA) {
  store(a.out, at::_upsample_bicubic2d_aa(wide(a.x), ints(a.outputSize), a.alignCorners, scale(a.scalesH),
                                          scale(a.scalesW)));
}
ACLNN_CHECK(UpsampleTrilinear3d) { check_resampled(a.self, a.outputSize, a.out); }
ACLNN_KERNEL(UpsampleTrilinear3d) {
  store(a.out, at::upsample_trilinear3d(wide(a.self), ints(a.outputSize), a.alignCorners, scale(a.scalesD),
                                        scale(a.scalesH), scale(a.scalesW)));
}

ACLNN_CHECK(ReflectionPad1d) { check_padded(a.self, a.padding, 1, a.out); }
ACLNN_KERNEL(ReflectionPad1d) { store(a.out, at::reflection_pad1d(in(a.self), ints(a.padding))); }
ACLNN_CHECK(ReflectionPad2d) { check_padded(a.self, a.padding, 2, a.out); }
ACLNN_KERNEL(ReflectionPad2d) { store(a.out, at::reflection_pad2d(in(a.self), ints(a.padding))); }
ACLNN_CHECK(ReflectionPad3d) { check_padded(a.self, a.padding, 3, a.out); }
ACLNN_KERNEL(ReflectionPad3d) { store(a.out, at::reflection_pad3d(in(a.self), ints(a.padding))); }
ACLNN_CHECK(ReplicationPad1d) { check_padded(a.self, a.padding, 1, a.out); }
ACLNN_KERNEL(ReplicationPad1d) { store(a.out, at::replication_pad1d(wide(a.self), ints(a.padding))); }
ACLNN_CHECK(ReplicationPad2d) { check_padded(a.self, a.padding, 2, a.out); }
ACLNN_KERNEL(ReplicationPad2d) { store(a.out, at::replication_pad2d(wide(a.self), ints(a.padding))); }
ACLNN_CHECK(ReplicationPad3d) { check_padded(a.self, a.padding, 3, a.out); }
ACLNN_KERNEL(ReplicationPad3d) { store(a.out, at::replication_pad3d(wide(a.self), ints(a.padding))); }

ACLNN_KERNEL(AffineGrid) { store(a.out, at::affine_grid_generator(wide(a.theta), ints(a.size), a.alignCorners)); }
ACLNN_KERNEL(GridSampler2D) {
  store(a.out, at::grid_sampler_2d(wide(a.input), wide(a.grid), a.interpolationMode, a.paddingMode, a.alignCorners));
}
ACLNN_KERNEL(GridSampler3D) {
  store(a.out, at::grid_sampler_3d(wide(a.input), wide(a.grid), a.interpolationMode, a.paddingMode, a.alignCorners));
}

}  // namespace emulator::aclnn
