// Filters of logits for token sampling.
#include <ATen/ops/cumsum.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/where.h>

#include <limits>

#include "aclnn/kernels/aten_arguments.h"
#include "aclnn/kernels/sorted.h"

namespace emulator::aclnn {

namespace {

constexpr double kRemoved = -std::numeric_limits<double>::infinity();

// `sorted` ascends along dimension 1. Removes all but the k[b] largest of row b, keeping ties with the smallest kept.
// k <= 0 or >= the number of logits keeps all (document, and apply_top_k_top_p_with_sorted.h).
void filter_top_k(at::Tensor sorted, const at::Tensor& k) {
  const at::Tensor kept = at::where(k.le(0), at::full_like(k, sorted.size(1)), k).to(at::kLong);
  const at::Tensor position = kept.neg().add(sorted.size(1)).clamp(0, sorted.size(1) - 1).unsqueeze(1);
  sorted.masked_fill_(sorted.lt(sorted.gather(1, position)), kRemoved);
}

// Removes the least likely, as long as they make up at most 1 - p[b] together; the likeliest always stays.
void filter_top_p(at::Tensor sorted, const at::Tensor& p) {
  at::Tensor removed = at::cumsum(at::softmax(sorted, 1), 1).le(p.to(at::kFloat).neg().add(1).unsqueeze(1));
  removed.narrow(1, sorted.size(1) - 1, 1).fill_(false);
  sorted.masked_fill_(removed, kRemoved);
}

}  // namespace

ACLNN_CHECK(ApplyTopKTopP) {
  require_dtype(a.logits, "logits", {ACL_FLOAT16, ACL_BF16, ACL_FLOAT});
  require_rank(a.logits, "logits", 2, 2);
  require(a.logits.sizes[1] > 0, "logits has no columns.");
  require(a.p.defined() || a.k.defined(), "p and k are both null, which leaves nothing to filter by.");
  require_sizes(a.out, "out", a.logits.sizes);
  require_same_dtype(a.logits, "logits", a.out, "out");
  if (a.p.defined()) {
    require_same_dtype(a.logits, "logits", a.p, "p");
    require_sizes(a.p, "p", {a.logits.sizes[0]});
  }
  if (a.k.defined()) {
    require_dtype(a.k, "k", {ACL_INT32});
    require_sizes(a.k, "k", {a.logits.sizes[0]});
  }
}
ACLNN_KERNEL(ApplyTopKTopP) {
  const auto [values, indices] = sorted(in(a.logits).to(at::kFloat), 1, /*descending=*/false);
  if (a.k.defined()) filter_top_k(values, in(a.k));
  if (a.p.defined()) filter_top_p(values, in(a.p));
  store(a.out, at::empty_like(values).scatter_(1, indices, values));
}

}  // namespace emulator::aclnn
