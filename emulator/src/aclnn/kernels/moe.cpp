// Mixture of experts: which experts take a token (gating), and the tokens in the order of their experts (routing).
// Semantics: hicann/ops-transformer, moe/*/README.md, and the references in op-plugin's tests of the Python functions.
#include <ATen/ops/arange.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/sort.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "aclnn/kernels/aten_arguments.h"

namespace emulator::aclnn {

// ---------------------------------------------------------------------------------------------------- gating

ACLNN_CHECK(MoeGatingTopKSoftmax) {
  require_rank(a.x, "x", 2, 3);
  require_dtype(a.x, "x", {ACL_FLOAT16, ACL_BF16, ACL_FLOAT});
  require(a.k > 0 && a.k <= a.x.sizes.back(0), "k is %lld, but must be 1 to the number of experts, %lld.",
          static_cast<long long>(a.k), static_cast<long long>(a.x.sizes.back(0)));
  require(a.k <= 1024, "k is %lld, but must be at most 1024.", static_cast<long long>(a.k));
  if (a.finishedOptional.defined()) require_dtype(a.finishedOptional, "finishedOptional", {ACL_BOOL});
  Dims chosen = a.x.sizes;
  chosen[chosen.rank() - 1] = a.k;
  require_same_dtype(a.x, "x", a.yOut, "yOut");
  require_dtype(a.expertIdxOut, "expertIdxOut", {ACL_INT32});
  require_dtype(a.rowIdxOut, "rowIdxOut", {ACL_INT32});
  require_sizes(a.yOut, "yOut", chosen);
  require_sizes(a.expertIdxOut, "expertIdxOut", chosen);
  require_sizes(a.rowIdxOut, "rowIdxOut", chosen);
}
ACLNN_KERNEL(MoeGatingTopKSoftmax) {
  const at::Tensor probabilities = at::softmax(in(a.x), -1, at::kFloat);
  const auto [values, indices] = at::sort(probabilities, /*stable=*/true, -1, /*descending=*/true);
  store(a.yOut, values.narrow(-1, 0, a.k));
  at::Tensor experts = indices.narrow(-1, 0, a.k);
  if (a.finishedOptional.defined()) {  // a finished row asks for an expert that does not exist
    experts = experts.masked_fill(in(a.finishedOptional).unsqueeze(-1), a.x.sizes.back(0));
  }
  store(a.expertIdxOut, experts);
  const int64_t rows = a.x.numel() / a.x.sizes.back(0);
  store(a.rowIdxOut, at::arange(rows * a.k).view({a.k, rows}).t().reshape(in(a.rowIdxOut).sizes()));
}

// --------------------------------------------------------------------------------------------------- routing

namespace {

// Dropless routing of tokens x [rows, hidden] to the experts in expert_idx [rows, k], without quantisation.
struct Routing {
  const TensorView& x;
  const TensorView& expert_idx;
  const TensorView& expanded_x;
  const TensorView& expanded_row_idx;
  int64_t first_expert;  // experts outside [first, end) get no rows
  int64_t end_expert;
  bool scatter_index;  // expanded_row_idx says where an output row comes from, instead of where an input row went

  int64_t k() const { return expert_idx.sizes.back(0); }
};

void check_routing(const Routing& r, int64_t active, int64_t drop_pad_mode) {
  require_rank(r.x, "x", 2, 2);
  require_rank(r.expert_idx, "expertIdx", 2, 2);
  require_dtype(r.x, "x", {ACL_FLOAT16, ACL_BF16, ACL_FLOAT});
  require_dtype(r.expert_idx, "expertIdx", {ACL_INT32});
  require_dtype(r.expanded_row_idx, "expandedRowIdxOut", {ACL_INT32});
  require(r.x.sizes[0] == r.expert_idx.sizes[0], "x has %lld rows and expertIdx %lld, but they must be equal.",
          static_cast<long long>(r.x.sizes[0]), static_cast<long long>(r.expert_idx.sizes[0]));
  require_same_dtype(r.x, "x", r.expanded_x, "expandedXOut");
  require_sizes(r.expanded_row_idx, "expandedRowIdxOut", {r.expert_idx.numel()});
  if (drop_pad_mode != 0) fail(kRuntimeError, "MoeInitRouting: the emulator does not implement dropPadMode 1 yet.");
  require(active >= 0 && active <= r.expert_idx.numel(), "activeNum is %lld, but must be 0 (all) to rows * k = %lld.",
          static_cast<long long>(active), static_cast<long long>(r.expert_idx.numel()));
}

// Writes the rows in the order of their experts and the index between the orders; returns how many each expert has.
std::vector<int64_t> route(const Routing& r) {
  const at::Tensor experts = in(r.expert_idx).contiguous();
  const auto* expert_of = experts.data_ptr<int32_t>();
  const int64_t slots = r.expert_idx.numel(), k = r.k();
  std::vector<int64_t> order(slots);
  std::iota(order.begin(), order.end(), 0);
  const auto is_here = [&](int64_t slot) { return expert_of[slot] >= r.first_expert && expert_of[slot] < r.end_expert; };
  const auto here = std::stable_partition(order.begin(), order.end(), is_here) - order.begin();
  std::stable_sort(order.begin(), order.begin() + here, [&](int64_t p, int64_t q) { return expert_of[p] < expert_of[q]; });

  const at::Tensor tokens = in(r.x).contiguous();
  const int64_t row_bytes = tokens.size(1) * static_cast<int64_t>(tokens.element_size());
  const auto* from = static_cast<const char*>(tokens.const_data_ptr());
  auto* to = static_cast<char*>(r.expanded_x.data());
  auto* index = r.expanded_row_idx.data_as<int32_t>();
  const int64_t rows = std::min<int64_t>(here, r.expanded_x.sizes[0]);
  std::vector<int64_t> counts(r.end_expert - r.first_expert);
  if (!r.scatter_index) std::fill_n(index, slots, -1);
  for (int64_t i = 0; i < here; ++i) {
    if (i < rows) std::memcpy(to + i * row_bytes, from + order[i] / k * row_bytes, row_bytes);
    ++counts[expert_of[order[i]] - r.first_expert];
    index[r.scatter_index ? i : order[i]] = static_cast<int32_t>(r.scatter_index ? order[i] : i);
  }
  return counts;
}

template <typename T>
void store_counts(const TensorView& out, const std::vector<int64_t>& counts, bool running_total) {
  int64_t total = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    total += counts[i];
    out.data_as<T>()[i] = static_cast<T>(running_total ? total : counts[i]);
  }
}

enum V2CountFlag : int64_t { kNoCount = 0, kRunningTotal = 1, kCount = 2 };
constexpr int64_t kUnquantised = -1;
constexpr int64_t kCountMode = 1;

Routing routing_of(const MoeInitRoutingV2Args& a) {
  return {a.x, a.expertIdx, a.expandedXOut, a.expandedRowIdxOut, 0, a.expertNumOptional, false};
}
Routing routing_of(const MoeInitRoutingV3Args& a) {
  const bool ranged = a.activeExpertRangeOptional.size() == 2;
  return {a.x,
          a.expertIdx,
          a.expandedXOut,
          a.expandedRowIdxOut,
          ranged ? a.activeExpertRangeOptional[0] : 0,
          ranged ? a.activeExpertRangeOptional[1] : a.expertNum,
          a.rowIdxType == 1};
}

}  // namespace

ACLNN_CHECK(MoeInitRoutingV2) {
  check_routing(routing_of(a), a.activeNumOptional, a.dropPadModeOptional);
  require(a.expertTokensCountOrCumsumFlagOptional >= kNoCount && a.expertTokensCountOrCumsumFlagOptional <= kCount,
          "expertTokensCountOrCumsumFlag is %lld, but must be 0, 1 or 2.",
          static_cast<long long>(a.expertTokensCountOrCumsumFlagOptional));
  if (a.expertTokensCountOrCumsumFlagOptional != kNoCount) {
    require(a.expertNumOptional > 0, "expertNum must be positive where tokens are counted.");
    require_dtype(a.expertTokensCountOrCumsumOutOptional, "expertTokensCountOrCumsumOut", {ACL_INT32});
    require_sizes(a.expertTokensCountOrCumsumOutOptional, "expertTokensCountOrCumsumOut", {a.expertNumOptional});
  }
}
ACLNN_KERNEL(MoeInitRoutingV2) {
  const auto counts = route(routing_of(a));
  if (a.expertTokensCountOrCumsumFlagOptional == kNoCount) return;
  store_counts<int32_t>(a.expertTokensCountOrCumsumOutOptional, counts,
                        a.expertTokensCountOrCumsumFlagOptional == kRunningTotal);
}

ACLNN_CHECK(MoeInitRoutingV3) {
  check_routing(routing_of(a), a.activeNum, a.dropPadMode);
  require(a.activeNum == a.expertIdx.numel(), "activeNum is %lld, but must be rows * k = %lld.",
          static_cast<long long>(a.activeNum), static_cast<long long>(a.expertIdx.numel()));
  if (a.quantMode != kUnquantised) fail(kRuntimeError, "MoeInitRoutingV3: the emulator does not implement quantMode yet.");
  if (!a.expertTokensNumFlag) return;
  require(a.expertTokensNumType == kCountMode || a.expertTokensNumType == 2,
          "expertTokensNumType is %lld, but must be 1 (count) or 2 (key_value).",
          static_cast<long long>(a.expertTokensNumType));
  if (a.expertTokensNumType == 2) fail(kRuntimeError, "MoeInitRoutingV3: the emulator does not implement key_value yet.");
  const Routing r = routing_of(a);
  require(r.first_expert >= 0 && r.first_expert < r.end_expert && r.end_expert <= a.expertNum,
          "activeExpertRange must lie within [0, expertNum], which is %lld.", static_cast<long long>(a.expertNum));
  require_dtype(a.expertTokensCountOrCumsumOut, "expertTokensCountOrCumsumOut", {ACL_INT64});
  require_sizes(a.expertTokensCountOrCumsumOut, "expertTokensCountOrCumsumOut", {r.end_expert - r.first_expert});
}
ACLNN_KERNEL(MoeInitRoutingV3) {
  const auto counts = route(routing_of(a));
  if (a.expertTokensNumFlag) store_counts<int64_t>(a.expertTokensCountOrCumsumOut, counts, false);
}

}  // namespace emulator::aclnn
