// What convolution, pooling and resampling of images demand of their sizes: aclnn's documents of these operators.
#include <vector>

#include "aclnn/operator.h"
#include "aclnn_arguments.h"

namespace emulator::aclnn {

namespace {

constexpr int64_t kMost = 1 << 30;  // of a kernel, a stride, a padding: far beyond any image

// A list that has an element for each of `axes`, or one for all of them; `absent` if it may be left out.
class PerAxis {
 public:
  PerAxis(const IntArray& list, const char* name, int axes, int64_t least, const PerAxis* absent = nullptr) {
    if (list.empty() && absent != nullptr) {
      values_ = absent->values_;
      return;
    }
    require(list.size() == 1 || static_cast<int>(list.size()) == axes, "%s has %zu elements, but must have 1 or %d.", name,
            list.size(), axes);
    for (int i = 0; i < axes; ++i) values_.push_back(list[list.size() == 1 ? 0 : static_cast<size_t>(i)]);
    for (const int64_t value : values_) {
      require(value >= least && value <= kMost, "%s has the element %lld, but must have such of %lld and more.", name,
              static_cast<long long>(value), static_cast<long long>(least));
    }
  }
  PerAxis(int axes, int64_t value) : values_(static_cast<size_t>(axes), value) {}
  int64_t operator[](int axis) const { return values_[static_cast<size_t>(axis)]; }

 private:
  std::vector<int64_t> values_;
};

// Windows of a kernel that moves over images.
struct Windows {
  PerAxis kernel, stride, padding, dilation;
  bool ceil = false;

  int64_t count(int axis, int64_t size) const {
    const int64_t padded = size + 2 * padding[axis], reach = dilation[axis] * (kernel[axis] - 1) + 1;
    require(reach <= padded, "a kernel that reaches over %lld does not fit into %lld with its padding.",
            static_cast<long long>(reach), static_cast<long long>(padded));
    int64_t windows = (padded - reach + (ceil ? stride[axis] - 1 : 0)) / stride[axis] + 1;
    if (ceil && (windows - 1) * stride[axis] >= size + padding[axis]) --windows;  // one that would begin in the padding
    return windows;
  }
};

// [C, ...] or [N, C, ...] with `axes` behind, none of those empty.
void require_images(const TensorView& self, const char* name, int axes) {
  require_rank(self, name, axes + 1, axes + 2);
  for (int i = self.rank() - axes - 1; i < self.rank(); ++i) {
    require(self.sizes[i] > 0, "%s has sizes %s: its images are empty.", name, to_string(self.sizes).c_str());
  }
}

Dims resized(const TensorView& self, const IntArray& sizes, int axes) {
  require_images(self, "self", axes);
  require(static_cast<int>(sizes.size()) == axes, "outputSize has %zu elements, but must have %d.", sizes.size(), axes);
  Dims expected = self.sizes;
  for (int i = 0; i < axes; ++i) expected[self.rank() - axes + i] = sizes[static_cast<size_t>(i)];
  return expected;
}

Dims pooled(const TensorView& self, const Windows& windows, int axes) {
  require_images(self, "self", axes);
  Dims expected = self.sizes;
  for (int i = 0; i < axes; ++i) {
    require(windows.padding[i] <= windows.kernel[i] / 2, "a padding of %lld is more than half of the kernel of %lld.",
            static_cast<long long>(windows.padding[i]), static_cast<long long>(windows.kernel[i]));
    int64_t& size = expected[self.rank() - axes + i];
    size = windows.count(i, size);
  }
  return expected;
}

void check_average(const TensorView& self, const IntArray& kernel, const IntArray& stride, const IntArray& padding, bool ceil,
                   int axes, const TensorView& out) {
  const PerAxis size(kernel, "kernelSize", axes, 1);
  const Windows windows{size, PerAxis(stride, "stride", axes, 1, &size), PerAxis(padding, "padding", axes, 0), PerAxis(axes, 1),
                        ceil};
  require_sizes(out, "out", pooled(self, windows, axes));
}

Dims maximum(const TensorView& self, const IntArray& kernel, const IntArray& stride, const IntArray& padding,
             const IntArray& dilation, bool ceil, int axes) {
  const PerAxis size(kernel, "kernelSize", axes, 1);
  return pooled(self, {size, PerAxis(stride, "stride", axes, 1, &size), PerAxis(padding, "padding", axes, 0),
                       PerAxis(dilation, "dilation", axes, 1), ceil}, axes);
}

void check_pair(const TensorView& values, const char* name, const TensorView& indices, const Dims& sizes) {
  require_sizes(values, name, sizes);
  if (!indices.defined()) return;
  require_dtype(indices, "indices", {ACL_INT32, ACL_INT64});
  require_sizes(indices, "indices", sizes);
}

void check_unpooled(const TensorView& self, const TensorView& indices, const IntArray& sizes, int axes, const TensorView& out) {
  require_sizes(indices, "indices", self.sizes);
  require_dtype(indices, "indices", {ACL_INT32, ACL_INT64});
  require_sizes(out, "out", resized(self, sizes, axes));
}

// Points of `grid` in images of `axes` axes, one number for each axis.
void check_sampled(const TensorView& input, const TensorView& grid, int64_t interpolation, int64_t modes, int64_t padding,
                   int axes, const TensorView& out) {
  require_rank(input, "input", axes + 2, axes + 2);
  require_images(input, "input", axes);
  require_rank(grid, "grid", axes + 2, axes + 2);
  require(grid.sizes[0] == input.sizes[0] && grid.sizes.back() == axes, "grid has sizes %s, but must have [%lld, ..., %d].",
          to_string(grid.sizes).c_str(), static_cast<long long>(input.sizes[0]), axes);
  require_same_dtype(input, "input", grid, "grid");
  require(interpolation >= 0 && interpolation < modes, "interpolationMode is %lld.", static_cast<long long>(interpolation));
  require(padding >= 0 && padding <= 2, "paddingMode is %lld.", static_cast<long long>(padding));
  Dims expected = input.sizes;
  for (int i = 0; i < axes; ++i) expected[2 + i] = grid.sizes[1 + i];
  require_sizes(out, "out", expected);
}

}  // namespace

ACLNN_CHECK(AdaptiveAvgPool2d) { require_sizes(a.out, "out", resized(a.self, a.outputSize, 2)); }
ACLNN_CHECK(AdaptiveAvgPool3d) { require_sizes(a.out, "out", resized(a.self, a.outputSize, 3)); }
ACLNN_CHECK(AdaptiveMaxPool2d) { check_pair(a.outputOut, "outputOut", a.indicesOut, resized(a.self, a.outputSize, 2)); }
ACLNN_CHECK(AdaptiveMaxPool3d) { check_pair(a.outputOut, "outputOut", a.indicesOut, resized(a.self, a.outputSize, 3)); }
ACLNN_CHECK(AvgPool2d) { check_average(a.self, a.kernelSize, a.strides, a.paddings, a.ceilMode, 2, a.out); }
ACLNN_CHECK(AvgPool3d) { check_average(a.self, a.kernelSize, a.stride, a.padding, a.ceilMode, 3, a.out); }
ACLNN_CHECK(MaxPool2dWithIndices) {
  check_pair(a.out, "out", a.indices, maximum(a.self, a.kernelSize, a.stride, a.padding, a.dilation, a.ceilMode, 2));
}
ACLNN_CHECK(MaxPool2dWithMask) {
  require_sizes(a.out, "out", maximum(a.self, a.kernelSize, a.stride, a.padding, a.dilation, a.ceilMode, 2));
}
ACLNN_CHECK(MaxPool3dWithArgmax) {
  check_pair(a.out, "out", a.indices, maximum(a.self, a.kernelSize, a.stride, a.padding, a.dilation, a.ceilMode, 3));
}
ACLNN_CHECK(MaxUnpool2d) { check_unpooled(a.self, a.indices, a.outputSize, 2, a.out); }
ACLNN_CHECK(MaxUnpool3d) {
  check_unpooled(a.self, a.indices, a.outputSize, 3, a.outRef);
  require(a.stride.size() == 3 && a.padding.size() == 3, "stride and padding must have 3 elements each.");
  for (const int64_t stride : a.stride) require(stride > 0, "stride has an element that is not positive.");
}
ACLNN_CHECK(GridSampler2D) { check_sampled(a.input, a.grid, a.interpolationMode, 3, a.paddingMode, 2, a.out); }
ACLNN_CHECK(GridSampler3D) { check_sampled(a.input, a.grid, a.interpolationMode, 2, a.paddingMode, 3, a.out); }

ACLNN_CHECK(AffineGrid) {
  require(a.size.size() == 4 || a.size.size() == 5, "size has %zu elements, but must have 4 or 5.", a.size.size());
  const auto axes = static_cast<int64_t>(a.size.size()) - 2;
  for (const int64_t size : a.size) require(size > 0, "size has an element that is not positive.");
  require_sizes(a.theta, "theta", {a.size[0], axes, axes + 1});
  Dims expected{a.size[0]};
  for (int64_t i = 0; i < axes; ++i) expected.push_back(a.size[static_cast<size_t>(2 + i)]);
  expected.push_back(axes);
  require_sizes(a.out, "out", expected);
}

ACLNN_CHECK(ConvDepthwise2d) {
  require_rank(a.self, "self", 4, 4);
  require_images(a.self, "self", 2);
  require_rank(a.weight, "weight", 4, 4);
  require_same_dtype(a.self, "self", a.weight, "weight");
  require(a.weight.sizes[1] == 1 && a.weight.sizes[0] > 0 && a.weight.sizes[0] % a.self.sizes[1] == 0,
          "weight has sizes %s, but must have [k * %lld, 1, ...].", to_string(a.weight.sizes).c_str(),
          static_cast<long long>(a.self.sizes[1]));
  if (a.bias.defined()) require_sizes(a.bias, "bias", {a.weight.sizes[0]});
  const PerAxis kernel(a.kernelSize, "kernelSize", 2, 1);
  const Windows windows{kernel, PerAxis(a.stride, "stride", 2, 1), PerAxis(a.padding, "padding", 2, 0),
                        PerAxis(a.dilation, "dilation", 2, 1)};
  Dims expected{a.self.sizes[0], a.weight.sizes[0]};
  for (int i = 0; i < 2; ++i) {
    require(a.weight.sizes[2 + i] == kernel[i], "weight has sizes %s, which are not those of kernelSize.",
            to_string(a.weight.sizes).c_str());
    expected.push_back(windows.count(i, a.self.sizes[2 + i]));
  }
  require_sizes(a.out, "out", expected);
}

// Time, batch, channels.
ACLNN_CHECK(ConvTbc) {
  require_rank(a.self, "self", 3, 3);
  require_rank(a.weight, "weight", 3, 3);
  require_same_dtype(a.self, "self", a.weight, "weight");
  require(a.weight.sizes[1] == a.self.sizes[2], "weight takes %lld channels, but self has %lld.",
          static_cast<long long>(a.weight.sizes[1]), static_cast<long long>(a.self.sizes[2]));
  if (a.bias.defined()) require_sizes(a.bias, "bias", {a.weight.sizes[2]});
  require(a.pad >= 0 && a.pad <= kMost, "pad is %lld, but must not be negative.", static_cast<long long>(a.pad));
  const int64_t steps = a.self.sizes[0] + 2 * a.pad - a.weight.sizes[0] + 1;
  require(a.weight.sizes[0] > 0 && steps >= 0, "a kernel of %lld steps does not fit into %lld with a padding of %lld.",
          static_cast<long long>(a.weight.sizes[0]), static_cast<long long>(a.self.sizes[0]), static_cast<long long>(a.pad));
  require_sizes(a.output, "output", {steps, a.self.sizes[1], a.weight.sizes[2]});
}

ACLNN_CHECK(Im2col) {
  require_images(a.self, "self", 2);
  const PerAxis kernel(a.kernelSize, "kernelSize", 2, 1);
  const Windows windows{kernel, PerAxis(a.stride, "stride", 2, 1), PerAxis(a.padding, "padding", 2, 0),
                        PerAxis(a.dilation, "dilation", 2, 1)};
  const int first = a.self.rank() - 3;
  Dims expected = first == 0 ? Dims{} : Dims{a.self.sizes[0]};
  expected.push_back(a.self.sizes[first] * kernel[0] * kernel[1]);
  expected.push_back(windows.count(0, a.self.sizes[first + 1]) * windows.count(1, a.self.sizes[first + 2]));
  require_sizes(a.out, "out", expected);
}

}  // namespace emulator::aclnn
