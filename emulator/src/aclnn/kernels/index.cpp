// Reading and writing at positions given by index tensors or masks.
#include <ATen/ops/embedding_bag.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/index.h>
#include <ATen/ops/index_add.h>
#include <ATen/ops/index_copy.h>
#include <ATen/ops/index_fill.h>
#include <ATen/ops/index_put.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/masked_select.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/scatter.h>
#include <ATen/ops/scatter_add.h>
#include <ATen/ops/take.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "aclnn/kernels/aten_arguments.h"
#include "silicon/rules.h"

namespace emulator::aclnn {

namespace {

void check_index(const TensorView& index, const char* name) { require_dtype(index, name, {ACL_INT32, ACL_INT64}); }

at::Tensor positions(const TensorView& index) { return in(index).to(at::kLong); }

// aclnnIndex and aclnnIndexPutImpl: a tensor without elements stands for "all of this dimension".
c10::List<std::optional<at::Tensor>> position_list(const TensorList& indices) {
  c10::List<std::optional<at::Tensor>> list;
  list.reserve(indices.size());
  for (const TensorView& index : indices) {
    if (!index.defined() || index.numel() == 0) {
      list.push_back(std::nullopt);
    } else {
      at::Tensor tensor = in(index);
      list.push_back(tensor.scalar_type() == at::kInt ? tensor.to(at::kLong) : tensor);
    }
  }
  return list;
}

void check_index_list(const TensorView& self, const TensorList& indices) {
  require(static_cast<int>(indices.size()) <= self.rank(), "indices has %zu tensors for the %d dimensions of self.",
          indices.size(), self.rank());
  for (const TensorView& index : indices) {
    if (index.defined() && index.numel() != 0) require_dtype(index, "indices", {ACL_INT64, ACL_INT32, ACL_BOOL});
  }
}

}  // namespace

namespace {

bool selects(const TensorView& index) { return index.defined() && index.numel() != 0; }

// Sizes of self[indices]: the indices' common sizes stand where they follow one another, else in front.
Dims indexed_sizes(const TensorView& self, const TensorList& indices) {
  const auto indexed = [&](int i) { return i < static_cast<int>(indices.size()) && selects(indices[i]); };
  Dims common;
  int first = self.rank(), last = -1, count = 0;
  for (int i = 0; i < self.rank(); ++i) {
    if (!indexed(i)) continue;
    common = count == 0 ? indices[i].sizes : broadcast_sizes(common, "indices", indices[i].sizes, "indices");
    first = std::min(first, i);
    last = i;
    ++count;
  }
  const int at = last - first + 1 == count ? first : 0;
  Dims sizes;
  for (int i = 0; i <= self.rank(); ++i) {
    if (i == at && count > 0) {
      for (const int64_t size : common) sizes.push_back(size);
    }
    if (i < self.rank() && !indexed(i)) sizes.push_back(self.sizes[i]);
  }
  return sizes;
}

}  // namespace

ACLNN_CHECK(Index) {
  check_index_list(a.self, a.indices);
  const bool counted = std::none_of(a.indices.begin(), a.indices.end(), [](const TensorView& index) {
    return selects(index) && index.dtype == ACL_BOOL;  // a mask selects as many as only the device knows
  });
  if (counted && a.out.numel() != 0) require_sizes(a.out, "out", indexed_sizes(a.self, a.indices));
  require(a.self.dtype == a.out.dtype, "self is %s and out %s, but must be of one data type.", dtype_name(a.self.dtype),
          dtype_name(a.out.dtype));
}
ACLNN_KERNEL(Index) {
  if (a.out.numel() == 0) return;  // an index list for no element looks like "all" to position_list
  at::index_out(out(a.out), in(a.self), position_list(a.indices));
}
ACLNN_CHECK(IndexPutImpl) {
  check_index_list(a.selfRef, a.indices);
  require(a.selfRef.dtype == a.values.dtype, "selfRef is %s and values %s, but must be of one data type.",
          dtype_name(a.selfRef.dtype), dtype_name(a.values.dtype));
}
// The values, and the indices; not the whole tensor.
ACLNN_WORK(IndexPutImpl) {
  Work work;
  const auto bytes = static_cast<double>(size_in_bytes(a.values.sizes, a.values.dtype));
  work.vector_flops = static_cast<double>(a.values.numel());
  work.read_bytes = work.written_bytes = bytes;
  for (const TensorView& index : a.indices) {
    if (index.defined()) work.read_bytes += static_cast<double>(size_in_bytes(index.sizes, index.dtype));
  }
  return work;
}
ACLNN_KERNEL(IndexPutImpl) {
  bool selects_nothing = a.values.numel() == 0;
  if (selects_nothing || a.indices.empty()) return;
  in(a.selfRef).index_put_(position_list(a.indices), in(a.values), a.accumulate);
}

ACLNN_CHECK(IndexSelect) {
  const int64_t dim = require_dim(a.dim, a.self, "dim");
  check_index(a.index, "index");
  require_rank(a.index, "index", 0, 1);
  if (a.self.rank() == 0) return;
  Dims expected = a.self.sizes;
  expected[dim] = a.index.numel();
  require_sizes(a.out, "out", expected);
}
ACLNN_KERNEL(IndexSelect) { at::index_select_out(out(a.out), in(a.self), a.dim, in(a.index)); }

namespace {

// What is selected is read, not the whole table.
Work selection_work(const TensorView& selected, const TensorView& indices) {
  const auto bytes = static_cast<double>(size_in_bytes(selected.sizes, selected.dtype));
  return {.read_bytes = bytes + static_cast<double>(size_in_bytes(indices.sizes, indices.dtype)), .written_bytes = bytes};
}

}  // namespace

ACLNN_WORK(IndexSelect) { return selection_work(a.out, a.index); }

ACLNN_CHECK(Embedding) {
  require_rank(a.weight, "weight", 2, 2);
  check_index(a.indices, "indices");
  Dims expected = a.indices.sizes;
  expected.push_back(a.weight.sizes[1]);
  require_sizes(a.out, "out", expected);
  require_same_dtype(a.weight, "weight", a.out, "out");
}
ACLNN_KERNEL(Embedding) {
  at::Tensor result = in(a.out);
  at::Tensor rows = result.view({-1, a.weight.sizes[1]});
  at::index_select_out(rows, in(a.weight), 0, in(a.indices).reshape({-1}));
}
ACLNN_WORK(Embedding) { return selection_work(a.out, a.indices); }
ACLNN_CHECK(EmbeddingBag) {
  require_rank(a.weight, "weight", 2, 2);
  check_index(a.indices, "indices");
  check_index(a.offsets, "offsets");
  require_rank(a.indices, "indices", 1, 1);
  require_rank(a.offsets, "offsets", 1, 1);
  require(a.mode >= 0 && a.mode <= 2, "mode is %lld, but must be 0 (sum), 1 (mean) or 2 (max).", static_cast<long long>(a.mode));
  const int64_t bags = a.offsets.numel() - (a.includeLastOffset ? 1 : 0);
  require_sizes(a.output, "output", {std::max<int64_t>(bags, 0), a.weight.sizes[1]});
  if (a.perSampleWeights.defined()) require_sizes(a.perSampleWeights, "perSampleWeights", a.indices.sizes);
}
ACLNN_KERNEL(EmbeddingBag) {
  const auto [output, offset2bag, bag_size, max_indices] =
      at::embedding_bag(in(a.weight), in(a.indices), in(a.offsets), a.scaleGradByFreq, a.mode, a.sparse,
                        in_or_none(a.perSampleWeights), a.includeLastOffset,
                        a.paddingIdx < 0 ? std::nullopt : std::optional<int64_t>(a.paddingIdx));
  store(a.output, output);
  // The other three serve the backward pass; CANN and ATen give them different sizes for some modes.
  if (in(a.bagSize).sizes() == bag_size.sizes()) store(a.bagSize, bag_size);
  if (in(a.offset2bag).sizes() == offset2bag.sizes()) store(a.offset2bag, offset2bag);
  if (in(a.maxIndices).sizes() == max_indices.sizes()) store(a.maxIndices, max_indices);
}

ACLNN_CHECK(Gather) {
  require_dim(a.dim, a.self, "dim");
  check_index(a.index, "index");
  require_sizes(a.out, "out", a.index.sizes);
  require(a.index.rank() == a.self.rank() || a.index.rank() == 0 || a.self.rank() == 0,
          "index has %d dimensions, self %d.", a.index.rank(), a.self.rank());
}
ACLNN_KERNEL(Gather) { at::gather_out(out(a.out), in(a.self), a.dim, positions(a.index)); }

namespace {

enum ScatterReduction : int64_t { kReplace = 0, kAdd = 1, kMultiply = 2 };

void check_scatter(const TensorView& self, int64_t dim, const TensorView& index, int64_t reduction) {
  require_dim(dim, self, "dim");
  check_index(index, "index");
  require(reduction >= kReplace && reduction <= kMultiply, "reduce is %lld, but must be 0 (none), 1 (add) or 2 (mul).",
          static_cast<long long>(reduction));
}

// A scatter copies the tensor unless it works in place, and writes an element for each index.
Work scatter_work(const TensorView& self, int64_t dim, const TensorView& index, int64_t reduction, bool in_place) {
  constexpr double kAiCpuIndexNs = 100;  // assumed: an order of magnitude
  const auto elements = static_cast<double>(index.numel()), item_bytes = static_cast<double>(element_bits(self.dtype)) / 8;
  const auto copied = in_place ? 0.0 : static_cast<double>(size_in_bytes(self.sizes, self.dtype));
  Work work{.vector_flops = elements,
            .read_bytes = copied + static_cast<double>(size_in_bytes(index.sizes, index.dtype)) + elements * item_bytes,
            .written_bytes = copied + elements * item_bytes};
  if (!enforces(Rule::kWideScatter)) return work;
  constexpr int64_t kMostColumns = 48000, kFewestRows = 3;
  const bool last = self.rank() == 2 && (dim == 1 || dim == -1);
  const bool core = last && self.sizes[1] < kMostColumns && index.rank() == 2 && index.sizes[0] >= kFewestRows &&
                    reduction != kMultiply;
  if (!core) work.ai_cpu_ns = kAiCpuLaunchNs + elements * kAiCpuIndexNs;
  return work;
}

// Value is a tensor or a number.
template <typename Value>
void scatter(at::Tensor result, int64_t dim, const at::Tensor& index, const Value& value, int64_t reduction) {
  if (reduction == kReplace) {
    result.scatter_(dim, index, value);
  } else {
    result.scatter_(dim, index, value, reduction == kAdd ? "add" : "multiply");
  }
}

}  // namespace

ACLNN_CHECK(Scatter) { check_scatter(a.self, a.dim, a.index, a.reduce); }
ACLNN_WORK(Scatter) { return scatter_work(a.self, a.dim, a.index, a.reduce, false); }
ACLNN_KERNEL(Scatter) {
  store(a.out, in(a.self));
  scatter(in(a.out), a.dim, positions(a.index), in(a.src), a.reduce);
}
ACLNN_CHECK(ScatterValue) { check_scatter(a.self, a.dim, a.index, a.reduce); }
ACLNN_WORK(ScatterValue) { return scatter_work(a.self, a.dim, a.index, a.reduce, false); }
ACLNN_KERNEL(ScatterValue) {
  store(a.out, in(a.self));
  scatter(in(a.out), a.dim, positions(a.index), scalar(a.value), a.reduce);
}
ACLNN_CHECK(InplaceScatter) { check_scatter(a.selfRef, a.dim, a.index, a.reduce); }
ACLNN_WORK(InplaceScatter) { return scatter_work(a.selfRef, a.dim, a.index, a.reduce, true); }
ACLNN_KERNEL(InplaceScatter) { scatter(in(a.selfRef), a.dim, positions(a.index), in(a.src), a.reduce); }
ACLNN_CHECK(InplaceScatterValue) { check_scatter(a.selfRef, a.dim, a.index, a.reduce); }
ACLNN_WORK(InplaceScatterValue) { return scatter_work(a.selfRef, a.dim, a.index, a.reduce, true); }
ACLNN_KERNEL(InplaceScatterValue) { scatter(in(a.selfRef), a.dim, positions(a.index), scalar(a.value), a.reduce); }
ACLNN_CHECK(ScatterAdd) { check_scatter(a.self, a.dim, a.index, kAdd); }
ACLNN_WORK(ScatterAdd) { return scatter_work(a.self, a.dim, a.index, kAdd, false); }
ACLNN_KERNEL(ScatterAdd) { at::scatter_add_out(out(a.out), in(a.self), a.dim, positions(a.index), in(a.src)); }

ACLNN_CHECK(IndexAdd) { require_dim(a.dim, a.self, "dim"), check_index(a.index, "index"); }
ACLNN_KERNEL(IndexAdd) {
  at::index_add_out(out(a.out), in(a.self), a.dim, in(a.index), in(a.source), scalar(a.alpha));
}
ACLNN_CHECK(IndexAddV2) { require_dim(a.dim, a.self, "dim"), check_index(a.index, "index"); }
// `mode` chooses between a faster and a more exact accumulation in hardware.
ACLNN_KERNEL(IndexAddV2) {
  at::index_add_out(out(a.out), in(a.self), a.dim, in(a.index), in(a.source), scalar(a.alpha));
}
namespace {

void check_index_copy(const TensorView& self, int64_t dim, const TensorView& index, const TensorView& source) {
  require_dim(dim, self, "dim");
  check_index(index, "index");
  require_rank(index, "index", 0, 1);
  require_same_dtype(source, "source", self, "selfRef");
  if (self.rank() > 1 && enforces(Rule::kRowIndexCopy)) {
    refuse_by(Rule::kRowIndexCopy, kInnerNullptr,
              "index_copy_ of a tensor of %d dimensions is not known to work: assign by index, or copy the rows", self.rank());
  }
}

// What is written, and the index; not the whole tensor.
Work written_work(const TensorView& written, const TensorView& index) {
  const auto bytes = static_cast<double>(size_in_bytes(written.sizes, written.dtype));
  return {.vector_flops = static_cast<double>(written.numel()),
          .read_bytes = bytes + static_cast<double>(size_in_bytes(index.sizes, index.dtype)),
          .written_bytes = bytes};
}

}  // namespace

ACLNN_CHECK(IndexCopy) { check_index_copy(a.selfRef, a.dim, a.index, a.source); }
ACLNN_KERNEL(IndexCopy) {
  store(a.outRef, in(a.selfRef));
  in(a.outRef).index_copy_(a.dim, positions(a.index), in(a.source));
}
ACLNN_CHECK(InplaceIndexCopy) { check_index_copy(a.selfRef, a.dim, a.index, a.source); }
ACLNN_WORK(InplaceIndexCopy) { return written_work(a.source, a.index); }
ACLNN_KERNEL(InplaceIndexCopy) { in(a.selfRef).index_copy_(a.dim, positions(a.index), in(a.source)); }
ACLNN_CHECK(IndexFill) {
  require_dim(a.dim, a.self, "dim"), check_index(a.index, "index"), require_sizes(a.out, "out", a.self.sizes);
}
ACLNN_CHECK(IndexFillTensor) { require_dim(a.dim, a.self, "dim"), require_sizes(a.out, "out", a.self.sizes); }
ACLNN_CHECK(InplaceIndexFillTensor) { require_dim(a.dim, a.selfRef, "dim"); }
ACLNN_KERNEL(IndexFill) { store(a.out, at::index_fill(in(a.self), a.dim, positions(a.index), scalar(a.value))); }
ACLNN_KERNEL(IndexFillTensor) {
  store(a.out, at::index_fill(in(a.self), a.dim, at::tensor(ints(a.index)), scalar(a.value)));
}
ACLNN_KERNEL(InplaceIndexFill) { in(a.selfRef).index_fill_(a.dim, positions(a.index), scalar(a.value)); }
ACLNN_KERNEL(InplaceIndexFillTensor) {
  in(a.selfRef).index_fill_(a.dim, at::tensor(ints(a.index)), scalar(a.value));
}
ACLNN_KERNEL(Take) { at::take_out(out(a.out), in(a.self), positions(a.index)); }
ACLNN_KERNEL(InplacePut) { in(a.selfRef).put_(positions(a.index), in(a.source), a.accumulate); }

ACLNN_CHECK(InplaceMaskedFillScalar) {
  require_dtype(a.mask, "mask", {ACL_BOOL});
  require_sizes(a.selfRef, "selfRef", broadcast_sizes(a.selfRef.sizes, "selfRef", a.mask.sizes, "mask"));
}
ACLNN_KERNEL(InplaceMaskedFillScalar) { in(a.selfRef).masked_fill_(in(a.mask), scalar(a.value)); }
ACLNN_CHECK(InplaceMaskedFillTensor) {
  require_dtype(a.mask, "mask", {ACL_BOOL});
  require(a.value.numel() == 1, "value has %lld elements, but must have one.", static_cast<long long>(a.value.numel()));
  require_sizes(a.selfRef, "selfRef", broadcast_sizes(a.selfRef.sizes, "selfRef", a.mask.sizes, "mask"));
}
ACLNN_KERNEL(InplaceMaskedFillTensor) { in(a.selfRef).masked_fill_(in(a.mask), in(a.value).reshape({})); }
ACLNN_CHECK(InplaceMaskedScatter) { require_dtype(a.mask, "mask", {ACL_BOOL, ACL_UINT8}); }
ACLNN_KERNEL(InplaceMaskedScatter) { in(a.selfRef).masked_scatter_(in(a.mask).to(at::kBool), in(a.source)); }

ACLNN_CHECK(MaskedSelect) {
  require_dtype(a.mask, "mask", {ACL_BOOL, ACL_UINT8});
  require_same_dtype(a.out.view, "out", a.self, "self");
  broadcast_sizes(a.self, "self", a.mask, "mask");
}
ACLNN_CHECK(Nonzero) { require_dtype(a.out.view, "out", {ACL_INT64}); }
ACLNN_CHECK(NonzeroV2) { require_dtype(a.out.view, "out", {ACL_INT64}); }
ACLNN_KERNEL(MaskedSelect) {
  const at::Tensor selected = at::masked_select(in(a.self), in(a.mask).to(at::kBool));
  store(a.out.resolve({selected.numel()}), selected);
}
ACLNN_KERNEL(Nonzero) {
  const at::Tensor found = at::nonzero(in(a.self));
  store(a.out.resolve({found.size(0), found.size(1)}), found);
}
ACLNN_KERNEL(NonzeroV2) {  // one row per dimension, one column per element
  const at::Tensor found = at::nonzero(in(a.self)).t();
  store(a.out.resolve({found.size(0), found.size(1)}), found);
}

ACLNN_CHECK(ScatterNdUpdate) {
  check_index(a.indices, "indices");
  require_rank(a.indices, "indices", 1, Dims::kMaxRank);
  require(a.indices.sizes.back() <= a.varRef.rank(), "the last dimension of indices is %lld, more than varRef has.",
          static_cast<long long>(a.indices.sizes.back()));
  require_same_dtype(a.varRef, "varRef", a.updates, "updates");
}
ACLNN_WORK(ScatterNdUpdate) { return written_work(a.updates, a.indices); }
ACLNN_KERNEL(ScatterNdUpdate) {  // indices[..., k] is the position along dimension k
  c10::List<std::optional<at::Tensor>> list;
  for (const at::Tensor& position : positions(a.indices).unbind(-1)) list.push_back(position);
  in(a.varRef).index_put_(list, in(a.updates), false);
}

// data[i, ..., indices[i] + k, ...] = updates[i, ..., k, ...] along `axis`: a cache's write, one position a sequence.
ACLNN_CHECK(InplaceScatterUpdate) {
  check_index(a.indices, "indices");
  const int64_t axis = require_dim(a.axis, a.data, "axis");
  require(axis != 0, "axis must not be the first dimension, which indices counts.");
  require_rank(a.indices, "indices", 1, 2);
  require_same_dtype(a.data, "data", a.updates, "updates");
}
ACLNN_WORK(InplaceScatterUpdate) { return written_work(a.updates, a.indices); }
ACLNN_KERNEL(InplaceScatterUpdate) {
  at::Tensor data = in(a.data);
  const at::Tensor updates = in(a.updates);
  const at::Tensor indices = positions(a.indices);
  const int64_t length = updates.size(a.axis);
  for (int64_t i = 0; i < indices.size(0); ++i) {
    // Two-dimensional indices name the sequence themselves: rows of (sequence, position).
    const bool named = indices.dim() == 2;
    const int64_t sequence = named ? indices[i][0].item<int64_t>() : i;
    const int64_t position = named ? indices[i][1].item<int64_t>() : indices[i].item<int64_t>();
    data.narrow(0, sequence, 1).narrow(a.axis, position, length).copy_(updates.narrow(0, i, 1));
  }
}

}  // namespace emulator::aclnn
