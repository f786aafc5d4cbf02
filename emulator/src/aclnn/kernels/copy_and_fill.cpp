// Copies, casts, concatenation, repetition, and tensors made from numbers.
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/channel_shuffle.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/flip.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/logspace.h>
#include <ATen/ops/range.h>
#include <ATen/ops/repeat_interleave.h>
#include <ATen/ops/roll.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tril.h>
#include <ATen/ops/triu.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "aclnn/kernels/elementwise.h"
#include "core/memory.h"
#include "silicon/rules.h"

namespace emulator::aclnn {

namespace {

constexpr int64_t kMoveBytes = 32;           // 310P's unit of TensorMove
constexpr int kUnknownByte = 0x7b;           // of what lies behind the source's storage

int64_t bytes_between(int64_t elements, aclDataType dtype) { return elements * element_bits(dtype) / 8; }

// Rule ragged_copy: the rest of the last block goes from behind the source to behind the target, as far as its storage
// reaches (an allocation is a multiple of 32 bytes: what lies behind the storage is nobody's).
void spoil_tail(const TensorView& to, const TensorView& from) {
  if (to.dtype != from.dtype || !(to.sizes == from.sizes) || !to.is_contiguous() || !from.is_contiguous()) return;
  const int64_t bytes = size_in_bytes(to.sizes, to.dtype), rest = bytes % kMoveBytes;
  if (bytes < kMoveBytes || rest == 0 || to.data() == from.data()) return;
  const auto room = [&](const TensorView& view) {
    const int64_t behind = view.storage_sizes.product() - view.storage_offset - view.numel();
    return std::min(kMoveBytes - rest, std::max<int64_t>(0, bytes_between(behind, view.dtype)));
  };
  const int64_t written = room(to), read = std::min(written, room(from));
  if (written == 0) return;
  auto* target = static_cast<char*>(to.data()) + bytes;
  std::memmove(target, static_cast<const char*>(from.data()) + bytes, read);
  std::memset(target + read, kUnknownByte, written - read);
  tell(Rule::kRaggedCopy, "aclnnInplaceCopy", "%lld bytes behind a copy of %lld bytes are overwritten",
       static_cast<long long>(written), static_cast<long long>(bytes));
}

}  // namespace

ACLNN_CHECK(InplaceCopy) {
  require_sizes(a.selfRef, "selfRef", broadcast_sizes(a.selfRef.sizes, "selfRef", a.src.sizes, "src"));
  require(!is_complex(a.src.dtype) || is_complex(a.selfRef.dtype), "src is %s and cannot be copied to %s.",
          dtype_name(a.src.dtype), dtype_name(a.selfRef.dtype));
}
ACLNN_KERNEL(InplaceCopy) {
  in(a.selfRef).copy_(in(a.src));
  if (enforces(Rule::kRaggedCopy)) spoil_tail(a.selfRef, a.src);
}

ACLNN_CHECK(Cast) {
  require(a.dtype == a.out.dtype, "dtype is %s, but out is %s.", dtype_name(a.dtype), dtype_name(a.out.dtype));
  require_sizes(a.out, "out", a.self.sizes);
}
ACLNN_KERNEL(Cast) { store(a.out, in(a.self)); }

namespace {

// PyTorch has always skipped 1-d tensors without elements in cat, whatever the rank of the others.
bool is_skipped_by_cat(const TensorView& tensor) { return tensor.rank() == 1 && tensor.numel() == 0; }

}  // namespace

ACLNN_CHECK(Cat) {
  require(!a.tensors.empty(), "tensors is empty.");
  int64_t extent = 0;
  for (const TensorView& tensor : a.tensors) {
    if (is_skipped_by_cat(tensor)) continue;
    const int64_t dim = require_dim(a.dim, tensor, "dim");
    require(tensor.rank() == a.out.rank(), "the tensors have %d and %d dimensions.", tensor.rank(), a.out.rank());
    Dims expected = a.out.sizes;
    expected[dim] = tensor.sizes[dim];
    require_sizes(tensor, "an element of tensors", expected);
    extent += tensor.sizes[dim];
  }
  if (a.out.numel() == 0) return;
  const int64_t dim = require_dim(a.dim, a.out, "dim");
  require(extent == a.out.sizes[dim], "out has %lld elements in dimension %lld, the tensors %lld together.",
          static_cast<long long>(a.out.sizes[dim]), static_cast<long long>(dim), static_cast<long long>(extent));
}
ACLNN_KERNEL(Cat) { at::cat_out(out(a.out), in(a.tensors), a.dim); }
ACLNN_CHECK(Stack) {
  require(!a.tensors.empty(), "tensors is empty.");
  const int rank = a.tensors[0].rank();
  require(a.dim >= -rank - 1 && a.dim <= rank, "dim is %lld, but must lie in [%d, %d].", static_cast<long long>(a.dim),
          -rank - 1, rank);
  const int64_t dim = a.dim < 0 ? a.dim + rank + 1 : a.dim;
  Dims sizes;
  for (int i = 0; i <= rank; ++i) {
    if (i == dim) sizes.push_back(static_cast<int64_t>(a.tensors.size()));
    if (i < rank) sizes.push_back(a.tensors[0].sizes[i]);
  }
  for (const TensorView& tensor : a.tensors) require_sizes(tensor, "an element of tensors", a.tensors[0].sizes);
  require_sizes(a.out, "out", sizes);
}
ACLNN_KERNEL(Stack) { at::stack_out(out(a.out), in(a.tensors), a.dim); }
ACLNN_KERNEL(SplitWithSize) {
  const at::Tensor self = in(a.self);
  int64_t start = 0;
  for (size_t i = 0; i < a.out.size(); ++i) {
    store(a.out[i], self.narrow(a.dim, start, a.splitSize[i]));
    start += a.splitSize[i];
  }
}
ACLNN_CHECK(SplitWithSize) {
  const int64_t dim = require_dim(a.dim, a.self, "dim");
  int64_t total = 0;
  for (int64_t size : a.splitSize) total += size;
  require(a.splitSize.size() == a.out.size(), "splitSize has %zu elements for %zu outputs.", a.splitSize.size(),
          a.out.size());
  require(total == a.self.sizes[dim], "splitSize adds up to %lld, but dimension %lld has %lld elements.",
          static_cast<long long>(total), static_cast<long long>(dim), static_cast<long long>(a.self.sizes[dim]));
}

ACLNN_CHECK(Repeat) {
  const int rank = static_cast<int>(a.repeats.size());
  require(rank >= a.self.rank(), "repeats has %d elements, fewer than the %d dimensions of self.", rank, a.self.rank());
  Dims expected(a.repeats.data(), a.repeats.size());
  for (int i = 0; i < a.self.rank(); ++i) expected[rank - a.self.rank() + i] *= a.self.sizes[i];
  require_sizes(a.out, "out", expected);
}
ACLNN_KERNEL(Repeat) { store(a.out, in(a.self).repeat(ints(a.repeats))); }
namespace {

void check_repeats(const TensorView& repeats, int64_t elements, int64_t output_elements) {
  require_dtype(repeats, "repeats", {ACL_INT64, ACL_INT32});
  require_rank(repeats, "repeats", 0, 1);
  require(repeats.numel() == 1 || repeats.numel() == elements, "repeats has %lld elements, but must have 1 or %lld.",
          static_cast<long long>(repeats.numel()), static_cast<long long>(elements));
  require(output_elements >= 0, "outputSize is %lld, but must not be negative.", static_cast<long long>(output_elements));
}

}  // namespace

ACLNN_CHECK(RepeatInterleave) {
  check_repeats(a.repeats, a.self.numel(), a.outputSize);
  require_rank(a.out, "out", 1, 1);
}
ACLNN_CHECK(RepeatInterleaveWithDim) {
  const auto dim = static_cast<int>(require_dim(a.dim, a.self, "dim"));
  check_repeats(a.repeats, a.self.sizes[dim], a.outputSize);
  require(a.out.rank() == a.self.rank(), "out has %d dimensions, self %d.", a.out.rank(), a.self.rank());
}
ACLNN_CHECK(RepeatInterleaveTensor) {
  check_repeats(a.repeats, a.repeats.numel(), a.outputSize);
  require_rank(a.out, "out", 1, 1);
}
namespace {

void check_repeats(int64_t repeats, int64_t output_elements) {
  require(repeats >= 0 && output_elements >= 0, "repeats is %lld and outputSize %lld, but neither may be negative.",
          static_cast<long long>(repeats), static_cast<long long>(output_elements));
}

}  // namespace

ACLNN_CHECK(RepeatInterleaveInt) {
  check_repeats(a.repeats, a.outputSize);
  require_sizes(a.out, "out", {Dims{a.self.numel(), a.repeats}.product()});
}
ACLNN_CHECK(RepeatInterleaveIntWithDim) {
  check_repeats(a.repeats, a.outputSize);
  Dims sizes = a.self.rank() == 0 ? Dims{1} : a.self.sizes;
  int64_t& repeated = sizes[static_cast<int>(require_dim(a.dim, a.self, "dim"))];
  repeated = Dims{repeated, a.repeats}.product();
  require_sizes(a.out, "out", sizes);
}
ACLNN_KERNEL(RepeatInterleave) { store(a.out, at::repeat_interleave(in(a.self), in(a.repeats))); }
ACLNN_KERNEL(RepeatInterleaveWithDim) { store(a.out, at::repeat_interleave(in(a.self), in(a.repeats), a.dim)); }
ACLNN_KERNEL(RepeatInterleaveInt) { store(a.out, at::repeat_interleave(in(a.self), a.repeats)); }
ACLNN_KERNEL(RepeatInterleaveIntWithDim) { store(a.out, at::repeat_interleave(in(a.self), a.repeats, a.dim)); }
ACLNN_KERNEL(RepeatInterleaveTensor) { store(a.out, at::repeat_interleave(in(a.repeats))); }

ACLNN_KERNEL(InplaceFillScalar) { in(a.selfRef).fill_(scalar(a.value)); }
ACLNN_CHECK(InplaceFillTensor) {
  require(a.value.numel() == 1, "value has %lld elements, but must have one.", static_cast<long long>(a.value.numel()));
}
ACLNN_KERNEL(InplaceFillTensor) { in(a.selfRef).fill_(in(a.value).reshape({})); }
ACLNN_KERNEL(InplaceFillDiagonal) { in(a.selfRef).fill_diagonal_(scalar(a.fillValue), a.wrap); }
ACLNN_CHECK(InplaceZero) {
  if (!a.selfRef.is_contiguous()) aten_dtype(a.selfRef.dtype);  // memory without gaps is zeroed whatever it holds
}
ACLNN_KERNEL(InplaceZero) {
  const TensorView& self = a.selfRef;
  auto* address = static_cast<char*>(self.base) + self.storage_offset * element_bits(self.dtype) / 8;
  if (self.is_contiguous() && !self.is_fractal_nz() && is_device_address(address)) {
    return fill_zero(address, size_in_bytes(self.sizes, self.dtype));
  }
  in(self).zero_();
}
ACLNN_KERNEL(InplaceOne) { in(a.selfRef).fill_(1); }

namespace {

// Half-open ranges; PyTorch and CANN compute the count in double.
void check_range(const Scalar& start, const Scalar& end, const Scalar& step, bool closed, const TensorView& out) {
  const double width = end.to_double() - start.to_double();
  require(step.to_double() != 0, "step must not be 0.");
  const double steps = width / step.to_double();
  require(steps >= 0, "the sign of step does not lead from start to end.");
  const auto count = static_cast<int64_t>(closed ? std::floor(steps) + 1 : std::ceil(steps));
  require(out.numel() == count, "out has %lld elements, but the range has %lld.", static_cast<long long>(out.numel()),
          static_cast<long long>(count));
}

}  // namespace

ACLNN_CHECK(Arange) { check_range(a.start, a.end, a.step, false, a.out); }
ACLNN_KERNEL(Arange) { at::arange_out(out(a.out), scalar(a.start), scalar(a.end), scalar(a.step)); }
ACLNN_CHECK(Range) { check_range(a.start, a.end, a.step, true, a.out); }
ACLNN_KERNEL(Range) { at::range_out(out(a.out), scalar(a.start), scalar(a.end), scalar(a.step)); }
namespace {

void check_steps(int64_t steps, const TensorView& out) {
  require(steps >= 0 && out.numel() == steps, "out has %lld elements, but steps is %lld.", static_cast<long long>(out.numel()),
          static_cast<long long>(steps));
}

}  // namespace

ACLNN_CHECK(Linspace) { check_steps(a.steps, a.out); }
ACLNN_CHECK(LogSpace) { check_steps(a.steps, a.result); }
ACLNN_CHECK(Eye) {
  require(a.n >= 0 && a.m >= 0, "n is %lld and m %lld, but neither may be negative.", static_cast<long long>(a.n),
          static_cast<long long>(a.m));
  require_sizes(a.out, "out", {a.n, a.m});
}
ACLNN_CHECK(InplaceFillDiagonal) { require_rank(a.selfRef, "selfRef", 2, Dims::kMaxRank); }
ACLNN_CHECK(InplaceTril) { require_rank(a.selfRef, "selfRef", 2, Dims::kMaxRank); }
ACLNN_CHECK(InplaceTriu) { require_rank(a.selfRef, "selfRef", 2, Dims::kMaxRank); }
ACLNN_KERNEL(Linspace) { at::linspace_out(out(a.out), scalar(a.start), scalar(a.end), a.steps); }
ACLNN_KERNEL(LogSpace) { at::logspace_out(out(a.result), scalar(a.start), scalar(a.end), a.steps, a.base); }
ACLNN_KERNEL(Eye) { at::eye_out(out(a.out), a.n, a.m); }

// on at the class's position of a new dimension `axis` (-1: the last), off elsewhere.
ACLNN_CHECK(OneHot) {
  require_dtype(a.self, "self", {ACL_INT32, ACL_INT64, ACL_UINT8});
  require(a.axis >= -1 && a.axis <= a.self.rank(), "axis is %lld, but must lie in [-1, %d].",
          static_cast<long long>(a.axis), a.self.rank());
  require(a.numClasses >= 0, "numClasses is %lld, but must not be negative.", static_cast<long long>(a.numClasses));
  require(a.onValue.numel() == 1 && a.offValue.numel() == 1, "onValue and offValue must have one element each.");
  Dims sizes;
  for (int i = 0; i <= a.self.rank(); ++i) {
    if (i == (a.axis < 0 ? a.self.rank() : a.axis)) sizes.push_back(a.numClasses);
    if (i < a.self.rank()) sizes.push_back(a.self.sizes[i]);
  }
  require_sizes(a.out, "out", sizes);
}
ACLNN_KERNEL(OneHot) {
  const int64_t axis = a.axis < 0 ? a.self.rank() : a.axis;
  at::Tensor result = in(a.out);
  const at::Tensor index = in(a.self).to(at::kLong).unsqueeze(axis);
  const at::Tensor valid = index.ge(0).logical_and(index.lt(a.numClasses));  // others give a row of `off`
  result.copy_(in(a.offValue).reshape({}).expand_as(result));
  const at::Tensor classes = at::arange(a.numClasses, index.options());
  at::DimVector shape(result.dim(), 1);
  shape[axis] = a.numClasses;
  const at::Tensor hit = index.eq(classes.view(shape)).logical_and(valid);
  result.masked_fill_(hit, in(a.onValue).reshape({}).to(result.scalar_type()));
}

ACLNN_KERNEL(Tril) { at::tril_out(out(a.out), in(a.self), a.diagonal); }
ACLNN_KERNEL(Triu) { at::triu_out(out(a.out), in(a.self), a.diagonal); }
ACLNN_KERNEL(InplaceTril) { in(a.selfRef).tril_(a.diagonal); }
ACLNN_KERNEL(InplaceTriu) { in(a.selfRef).triu_(a.diagonal); }
ACLNN_KERNEL(Flip) { store(a.out, at::flip(in(a.self), ints(a.dims))); }
ACLNN_KERNEL(Roll) { store(a.out, at::roll(in(a.x), ints(a.shifts), ints(a.dims))); }
ACLNN_KERNEL(ChannelShuffle) { store(a.out, at::channel_shuffle(in(a.self), a.groups)); }
ACLNN_CHECK(ConstantPadNd) {
  const auto pairs = static_cast<int>(a.pad.size() / 2);
  require(a.pad.size() % 2 == 0 && pairs <= a.self.rank(), "pad has %zu elements for the %d dimensions of self.", a.pad.size(),
          a.self.rank());
  Dims sizes = a.self.sizes;
  for (int i = 0; i < pairs; ++i) sizes[a.self.rank() - 1 - i] += a.pad[2 * i] + a.pad[2 * i + 1];
  require_sizes(a.out, "out", sizes);
}
ACLNN_KERNEL(ConstantPadNd) { store(a.out, at::constant_pad_nd(in(a.self), ints(a.pad), scalar(a.value))); }

}  // namespace emulator::aclnn
