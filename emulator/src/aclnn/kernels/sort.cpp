// Sorting, selection, uniqueness and search.
#include <ATen/ops/_unique.h>
#include <ATen/ops/_unique2.h>
#include <ATen/ops/bucketize.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/movedim.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/unique_consecutive.h>
#include <ATen/ops/unique_dim.h>

#include "aclnn/kernels/aten_arguments.h"
#include "aclnn/kernels/sorted.h"
#include "math/sort.h"

namespace emulator::aclnn {

Sorted sorted(const at::Tensor& tensor, int64_t dim, bool descending) {
  if (!at::isFloatingType(tensor.scalar_type()) || tensor.scalar_type() == at::kDouble || tensor.dim() == 0) {
    auto [values, indices] = at::sort(tensor, /*stable=*/true, dim, descending);
    return {values, indices};
  }
  const int64_t extent = tensor.size(dim);
  const at::Tensor rows = tensor.movedim(dim, -1);
  at::Tensor values = at::empty(rows.sizes(), rows.options().dtype(at::kFloat)).copy_(rows);
  at::Tensor indices = at::empty(rows.sizes(), rows.options().dtype(at::kLong));
  const int64_t count = extent == 0 ? 0 : values.numel() / extent;
  sort_rows(values.data_ptr<float>(), indices.data_ptr<int64_t>(), count, extent, descending);
  return {values.to(tensor.scalar_type()).movedim(-1, dim), indices.movedim(-1, dim)};
}

ACLNN_CHECK(Sort) {
  require_dim(a.dim, a.self, "dim");
  require_sizes(a.valuesOut, "valuesOut", a.self.sizes);
  require_sizes(a.indicesOut, "indicesOut", a.self.sizes);
  require_same_dtype(a.self, "self", a.valuesOut, "valuesOut");
}
// Stable also when not asked to be: the order of equal elements is then one of those that hardware may give.
ACLNN_KERNEL(Sort) {
  const Sorted result = sorted(in(a.self), a.dim, a.descending);
  store(a.valuesOut, result.values);
  store(a.indicesOut, result.indices);
}

ACLNN_CHECK(Topk) {
  const int64_t dim = require_dim(a.dim, a.self, "dim");
  const int64_t extent = a.self.rank() == 0 ? 1 : a.self.sizes[dim];
  require(a.k >= 0 && a.k <= extent, "k is %lld, but dimension %lld has %lld elements.", static_cast<long long>(a.k),
          static_cast<long long>(dim), static_cast<long long>(extent));
}
ACLNN_KERNEL(Topk) {
  const auto [values, indices] = at::topk(in(a.self), a.k, a.dim, a.largest, a.sorted);
  store(a.valuesOut, values);
  store(a.indicesOut, indices);
}

namespace {

Dims sizes_of(const at::Tensor& tensor) { return Dims(tensor.sizes().data(), tensor.dim()); }

void store_dynamic(const DynamicTensor& out, const at::Tensor& value) { store(out.resolve(sizes_of(value)), value); }

using UniqueResult = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

void store_unique(const DynamicTensor& values, const TensorView& inverse, bool return_inverse,
                  const DynamicTensor& counts, bool return_counts, const UniqueResult& result) {
  store_dynamic(values, std::get<0>(result));
  if (return_inverse) store(inverse, std::get<1>(result));
  if (return_counts) store_dynamic(counts, std::get<2>(result));
}

}  // namespace

namespace {

// The values have the type of self; how many there are only the device knows.
void check_unique(const TensorView& self, const DynamicTensor& values, const TensorView& inverse, bool return_inverse,
                  const Dims& inverse_sizes) {
  require_same_dtype(values.view, "valueOut", self, "self");
  if (!return_inverse) return;
  require_dtype(inverse, "inverseOut", {ACL_INT64});
  require_sizes(inverse, "inverseOut", inverse_sizes);
}

constexpr int64_t kFlattened = 1000;  // what CANN's document calls "no dimension"

}  // namespace

ACLNN_CHECK(Unique) { check_unique(a.self, a.valueOut, a.inverseOut, a.returnInverse, a.self.sizes); }
ACLNN_CHECK(Unique2) { check_unique(a.self, a.valueOut, a.inverseOut, a.returnInverse, a.self.sizes); }
ACLNN_CHECK(UniqueConsecutive) {
  const bool flat = a.dim == kFlattened;
  const Dims sizes = flat ? a.self.sizes : Dims{a.self.sizes[static_cast<int>(require_dim(a.dim, a.self, "dim"))]};
  check_unique(a.self, a.valueOut, a.inverseOut, a.returnInverse, sizes);
}
ACLNN_CHECK(UniqueDim) {
  const int64_t dim = require_dim(a.dim, a.self, "dim");
  check_unique(a.self, a.valueOut, a.inverseOut, a.returnInverse, {a.self.sizes[static_cast<int>(dim)]});
}
ACLNN_KERNEL(Unique) {
  const auto [values, inverse] = at::_unique(in(a.self), a.sorted, a.returnInverse);
  store_dynamic(a.valueOut, values);
  if (a.returnInverse) store(a.inverseOut, inverse);
}
ACLNN_KERNEL(Unique2) {
  store_unique(a.valueOut, a.inverseOut, a.returnInverse, a.countsOut, a.returnCounts,
               at::_unique2(in(a.self), a.sorted, a.returnInverse, a.returnCounts));
}
ACLNN_KERNEL(UniqueConsecutive) {
  store_unique(a.valueOut, a.inverseOut, a.returnInverse, a.countsOut, a.returnCounts,
               at::unique_consecutive(in(a.self), a.returnInverse, a.returnCounts,
                                      a.dim == kFlattened ? std::nullopt : std::optional<int64_t>(a.dim)));
}
ACLNN_KERNEL(UniqueDim) {
  store_unique(a.valueOut, a.inverseOut, a.returnInverse, a.countsOut, true,
               at::unique_dim(in(a.self), a.dim, a.sorted, a.returnInverse, true));
}

ACLNN_CHECK(SearchSorted) {
  require_dtype(a.out, "out", {a.outInt32 ? ACL_INT32 : ACL_INT64});
  require_sizes(a.out, "out", a.self.sizes);
}
ACLNN_KERNEL(SearchSorted) {
  at::searchsorted_out(out(a.out), in(a.sortedSequence), in(a.self), a.outInt32, a.right, std::nullopt,
                       in_or_none(a.sorter));
}
ACLNN_CHECK(SearchSorteds) { require_dtype(a.out, "out", {a.outInt32 ? ACL_INT32 : ACL_INT64}); }
ACLNN_KERNEL(SearchSorteds) {
  store(a.out, at::searchsorted(in(a.sortedSequence), scalar(a.self), a.outInt32, a.right, std::nullopt,
                                in_or_none(a.sorter)));
}
ACLNN_KERNEL(Bucketize) { at::bucketize_out(out(a.out), in(a.self), in(a.boundaries), a.outInt32, a.right); }

}  // namespace emulator::aclnn
