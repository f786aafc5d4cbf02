// Mixture of experts: the tokens in the order of their experts.
// Semantics: hicann/ops-transformer, moe/*/README.md, and the references in op-plugin's tests of the Python functions.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "aclnn/kernels/contiguous.h"
#include "aclnn/kernels/float_values.h"
#include "aclnn/kernels/quantize_row.h"
#include "aclnn_arguments.h"
#include "math/convert.h"
#include "silicon/rules.h"

namespace emulator::aclnn {

namespace {

enum QuantMode : int64_t { kUnquantized = -1, kStatic = 0, kDynamic = 1 };
enum CountMode : int64_t { kRunningTotal = 0, kCount = 1, kKeyValue = 2 };

// Tokens x [rows, hidden] to the experts in expert_idx [rows, k].
struct Routing {
  const TensorView& x;
  const TensorView& expert_idx;
  const TensorView& expanded_x;        // [slots, hidden]; with a capacity [experts, capacity, hidden]
  const TensorView& expanded_row_idx;  // [slots]
  int64_t first_expert;                // experts outside [first, end) get no rows
  int64_t end_expert;
  bool scatter_index;    // expanded_row_idx says where an output row comes from, instead of where an input row went
  int64_t capacity = 0;  // rows of each expert, more are dropped and fewer filled with 0; 0: all rows, none between
  int64_t quant_mode = kUnquantized;
  const TensorView* scale = nullptr;  // of the quantization; unquantized: a value that goes with its row
  const TensorView* offset = nullptr;
  const TensorView* row_scale = nullptr;  // [slots]: the scale of a quantized row, or the value that went with it
  bool takes_int8 = false;

  int64_t k() const { return expert_idx.sizes.back(0); }
  int64_t slots() const { return expert_idx.numel(); }
  bool has_scale() const { return scale != nullptr && scale->defined(); }
};

constexpr int64_t kDropped = -1;
constexpr int64_t kMostExperts = 10240;  // the documents' limit

void check_routing(const Routing& r, int64_t active) {
  require_rank(r.x, "x", 2, 2);
  require_rank(r.expert_idx, "expertIdx", 2, 2);
  if (r.takes_int8 && r.quant_mode == kUnquantized) {
    require_dtype(r.x, "x", {ACL_FLOAT16, ACL_BF16, ACL_FLOAT, ACL_INT8});
  } else {
    require_dtype(r.x, "x", {ACL_FLOAT16, ACL_BF16, ACL_FLOAT});
  }
  require_dtype(r.expert_idx, "expertIdx", {ACL_INT32});
  require_dtype(r.expanded_row_idx, "expandedRowIdxOut", {ACL_INT32});
  require(r.x.sizes[0] == r.expert_idx.sizes[0], "x has %lld rows and expertIdx %lld, but they must be equal.",
          static_cast<long long>(r.x.sizes[0]), static_cast<long long>(r.expert_idx.sizes[0]));
  if (r.quant_mode == kUnquantized) {
    require_same_dtype(r.x, "x", r.expanded_x, "expandedXOut");
  } else {
    require_dtype(r.expanded_x, "expandedXOut", {ACL_INT8});
  }
  require_sizes(r.expanded_row_idx, "expandedRowIdxOut", {r.slots()});
  if (r.quant_mode == kUnquantized && r.capacity == 0) {
    require_rank(r.expanded_x, "expandedXOut", 2, 2);
    require(r.expanded_x.sizes[1] == r.x.sizes[1], "expandedXOut is %lld wide, but x %lld.",
            static_cast<long long>(r.expanded_x.sizes[1]), static_cast<long long>(r.x.sizes[1]));
  }
  require(active >= 0, "activeNum is %lld, but must be at least 0.", static_cast<long long>(active));
  if (r.capacity > 0) require_sizes(r.expanded_x, "expandedXOut", {r.end_expert, r.capacity, r.x.sizes[1]});
}

void check_quantization(const Routing& r) {
  const int64_t experts = r.end_expert - r.first_expert, hidden = r.x.sizes[1];
  if (r.quant_mode == kStatic) {
    require(r.has_scale() && r.offset != nullptr && r.offset->defined(), "quantMode 0 needs scale and offset.");
    require(r.scale->numel() == 1 && r.offset->numel() == 1, "scale and offset must have one element each with quantMode 0.");
  } else if (r.quant_mode == kDynamic) {
    if (r.has_scale()) {
      require(r.scale->rank() == 2 && r.scale->sizes[1] == hidden && (r.scale->sizes[0] == 1 || r.scale->sizes[0] == experts),
              "scale has sizes %s, but must have [%lld, %lld] or [1, %lld].", to_string(r.scale->sizes).c_str(),
              static_cast<long long>(experts), static_cast<long long>(hidden), static_cast<long long>(hidden));
    }
    require(r.row_scale->defined(), "the output of the rows' scales must not be null with quantMode 1.");
    require_dtype(*r.row_scale, "the output of the rows' scales", {ACL_FLOAT});
  } else if (r.has_scale()) {
    require_sizes(*r.scale, "scale", {r.x.sizes[0]});
  }
}

// What each output row is: its slot, or kDropped for a row of padding.
struct Order {
  std::vector<int64_t> slot_of_row;
  std::vector<int64_t> row_of_slot;  // kDropped: the slot went nowhere
  std::vector<int64_t> counts;       // of each expert's slots, dropped ones included
  std::vector<int64_t> sorted;       // all slots by expert, those of experts elsewhere last
};

Order order_of(const Routing& r, int64_t output_rows) {
  const std::vector<int64_t> expert_of = int_values(r.expert_idx);
  std::vector<int64_t> slots(r.slots());
  std::iota(slots.begin(), slots.end(), 0);
  const auto key = [&](int64_t slot) { return expert_of[slot] < r.first_expert ? INT64_MAX : expert_of[slot]; };
  std::stable_sort(slots.begin(), slots.end(), [&](int64_t p, int64_t q) { return key(p) < key(q); });
  Order order{std::vector<int64_t>(output_rows, kDropped), std::vector<int64_t>(r.slots(), kDropped),
              std::vector<int64_t>(r.end_expert - r.first_expert), slots};
  int64_t next = 0;
  for (const int64_t slot : slots) {
    if (key(slot) >= r.end_expert) break;
    const int64_t expert = expert_of[slot] - r.first_expert;
    const int64_t within = order.counts[expert]++;
    if (r.capacity > 0 && within >= r.capacity) continue;
    const int64_t row = r.capacity > 0 ? expert * r.capacity + within : next++;
    order.row_of_slot[slot] = row;
    if (row < output_rows) order.slot_of_row[row] = slot;
  }
  return order;
}

void quantize_statically(const float* x, float scale, float offset, int64_t count, int8_t* y) {
  std::vector<float> moved(count);
  for (int64_t i = 0; i < count; ++i) moved[i] = x[i] * scale + offset;
  from_float(moved.data(), y, ACL_INT8, count);
}

void quantize_rows(const Routing& r, const Order& order) {
  const std::vector<float> x = float_values(r.x);
  const std::vector<float> scale = r.scale == nullptr ? std::vector<float>{} : float_values(*r.scale);
  const float offset = r.quant_mode == kStatic ? float_values(*r.offset)[0] : 0.0f;
  const std::vector<int64_t> expert_of = int_values(r.expert_idx);
  const int64_t hidden = r.x.sizes[1];
  const bool by_expert = r.has_scale() && r.quant_mode == kDynamic && r.scale->sizes[0] > 1;
  auto* y = r.expanded_x.data_as<int8_t>();
  for (size_t row = 0; row < order.slot_of_row.size(); ++row) {
    const int64_t slot = order.slot_of_row[row];
    if (slot == kDropped) continue;
    const float* token = &x[slot / r.k() * hidden];
    if (r.quant_mode == kStatic) {
      quantize_statically(token, scale[0], offset, hidden, y + row * hidden);
      continue;
    }
    const float* smooth = scale.empty() ? nullptr : &scale[by_expert ? (expert_of[slot] - r.first_expert) * hidden : 0];
    r.row_scale->data_as<float>()[row] = quantize_row(token, smooth, hidden, y + row * hidden);
  }
}

void copy_rows(const Routing& r, const Order& order) {
  const DenseInput tokens(r.x);
  const int64_t row_bytes = r.x.sizes[1] * element_bits(r.x.dtype) / 8;
  const std::vector<float> scale = r.has_scale() ? float_values(*r.scale) : std::vector<float>{};
  for (size_t row = 0; row < order.slot_of_row.size(); ++row) {
    const int64_t slot = order.slot_of_row[row];
    if (slot == kDropped) continue;
    std::memcpy(r.expanded_x.data_as<char>() + row * row_bytes, tokens.data_as<char>() + slot / r.k() * row_bytes, row_bytes);
    if (!scale.empty()) r.row_scale->data_as<float>()[row] = scale[slot / r.k()];
  }
}

// Writes the rows in the order of their experts and the index between the orders; returns how many each expert has.
std::vector<int64_t> route(const Routing& r) {
  const Order order = order_of(r, r.expanded_x.numel() / std::max<int64_t>(1, r.x.sizes[1]));
  if (r.capacity > 0) std::memset(r.expanded_x.data(), 0, size_in_bytes(r.expanded_x.sizes, r.expanded_x.dtype));
  if (r.quant_mode == kUnquantized) {
    copy_rows(r, order);
  } else {
    quantize_rows(r, order);
  }
  store_values(r.expanded_row_idx, r.scatter_index ? order.sorted : order.row_of_slot);
  return order.counts;
}

void store_counts(const TensorView& out, std::vector<int64_t> counts, bool running_total) {
  if (running_total) std::partial_sum(counts.begin(), counts.end(), counts.begin());
  store_values(out, counts);
}

// [[expert, count], ...] of the experts that have rows; the first pair after them is [0, 0].
void store_key_values(const TensorView& out, const std::vector<int64_t>& counts, int64_t first_expert) {
  std::vector<int64_t> pairs(out.numel(), 0);
  size_t at = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] == 0) continue;
    pairs[at++] = first_expert + static_cast<int64_t>(i);
    pairs[at++] = counts[i];
  }
  store_values(out, pairs);
}

enum V2CountFlag : int64_t { kNoCount = 0, kV2RunningTotal = 1, kV2Count = 2 };

// What the two functions of the second version share; `before` counts the rows that a capacity drops too.
void check_v2_counts(int64_t flag, bool before_flag, int64_t drop_pad_mode, int64_t experts, int64_t capacity,
                     const TensorView& counts, const TensorView& before) {
  require(experts >= 0 && experts <= kMostExperts, "expertNum is %lld, but must be 0 to 10240.",
          static_cast<long long>(experts));
  require(drop_pad_mode == 0 || drop_pad_mode == 1, "dropPadMode is %lld, but must be 0 or 1.",
          static_cast<long long>(drop_pad_mode));
  if (drop_pad_mode == 1) {
    require(capacity > 0 && experts > 0, "expertCapacity and expertNum must be positive with dropPadMode 1.");
    if (before_flag) {
      require_dtype(before, "expertTokensBeforeCapacityOut", {ACL_INT32});
      require_sizes(before, "expertTokensBeforeCapacityOut", {experts});
    }
    return;
  }
  require(flag >= kNoCount && flag <= kV2Count, "expertTokensCountOrCumsumFlag is %lld, but must be 0, 1 or 2.",
          static_cast<long long>(flag));
  if (flag == kNoCount) return;
  require(experts > 0, "expertNum must be positive where tokens are counted.");
  require_dtype(counts, "expertTokensCountOrCumsumOut", {ACL_INT32});
  require_sizes(counts, "expertTokensCountOrCumsumOut", {experts});
}

void store_v2_counts(int64_t flag, bool before_flag, int64_t drop_pad_mode, const TensorView& out, const TensorView& before,
                     const std::vector<int64_t>& counts) {
  if (drop_pad_mode == 1) {
    if (before_flag) store_counts(before, counts, false);
  } else if (flag != kNoCount) {
    store_counts(out, counts, flag == kV2RunningTotal);
  }
}

// Without a number of experts any index is one.
int64_t experts_of(int64_t expert_num) { return expert_num > 0 ? expert_num : int64_t{1} << 20; }

Routing routing_of(const MoeInitRoutingV2Args& a) {
  return {a.x, a.expertIdx, a.expandedXOut, a.expandedRowIdxOut, 0, experts_of(a.expertNumOptional), false,
          a.dropPadModeOptional == 1 ? a.expertCapacityOptional : 0};
}
Routing routing_of(const MoeInitRoutingQuantV2Args& a) {
  return {a.x, a.expertIdx, a.expandedXOut, a.expandedRowIdxOut, 0, experts_of(a.expertNum), false,
          a.dropPadMode == 1 ? a.expertCapacity : 0, a.quantMode, &a.scaleOptional, &a.offsetOptional,
          &a.dynamicQuantScaleOutOptional};
}
Routing routing_of(const MoeInitRoutingV3Args& a) {
  const bool ranged = a.activeExpertRangeOptional.size() == 2;
  return {a.x, a.expertIdx, a.expandedXOut, a.expandedRowIdxOut, ranged ? a.activeExpertRangeOptional[0] : 0,
          ranged ? a.activeExpertRangeOptional[1] : a.expertNum, a.rowIdxType == 1, 0, a.quantMode, &a.scaleOptional,
          &a.offsetOptional, &a.expandedScaleOut, true};
}

}  // namespace

ACLNN_CHECK(MoeInitRoutingV2) {
  check_routing(routing_of(a), a.activeNumOptional);
  if (enforces(Rule::kMoeRoutingWidth) && (a.x.sizes[1] % 32 != 0 || a.dropPadModeOptional != 0)) {
    refuse_by(Rule::kMoeRoutingWidth, kParamInvalid, "x is %lld wide, but must be a multiple of 32, and dropPadMode %lld must be 0",
              static_cast<long long>(a.x.sizes[1]), static_cast<long long>(a.dropPadModeOptional));
  }
  check_v2_counts(a.expertTokensCountOrCumsumFlagOptional, a.expertTokensBeforeCapacityFlagOptional, a.dropPadModeOptional,
                  a.expertNumOptional, a.expertCapacityOptional, a.expertTokensCountOrCumsumOutOptional,
                  a.expertTokensBeforeCapacityOutOptional);
}
ACLNN_KERNEL(MoeInitRoutingV2) {
  store_v2_counts(a.expertTokensCountOrCumsumFlagOptional, a.expertTokensBeforeCapacityFlagOptional, a.dropPadModeOptional,
                  a.expertTokensCountOrCumsumOutOptional, a.expertTokensBeforeCapacityOutOptional, route(routing_of(a)));
}

ACLNN_CHECK(MoeInitRoutingQuantV2) {
  const Routing r = routing_of(a);
  require(a.quantMode == kStatic || a.quantMode == kDynamic, "quantMode is %lld, but must be 0 (static) or 1 (dynamic).",
          static_cast<long long>(a.quantMode));
  check_routing(r, a.activeNum);
  check_quantization(r);
  check_v2_counts(a.expertTokensCountOrCumsumFlag, a.expertTokensBeforeCapacityFlag, a.dropPadMode, a.expertNum,
                  a.expertCapacity, a.expertTokensCountOrCumsumOutOptional, a.expertTokensBeforeCapacityOutOptional);
}
ACLNN_KERNEL(MoeInitRoutingQuantV2) {
  store_v2_counts(a.expertTokensCountOrCumsumFlag, a.expertTokensBeforeCapacityFlag, a.dropPadMode,
                  a.expertTokensCountOrCumsumOutOptional, a.expertTokensBeforeCapacityOutOptional, route(routing_of(a)));
}

ACLNN_CHECK(MoeInitRoutingV3) {
  const Routing r = routing_of(a);
  require(a.dropPadMode == 0, "dropPadMode is %lld, but must be 0.", static_cast<long long>(a.dropPadMode));
  require(a.quantMode == kUnquantized || a.quantMode == kDynamic,
          "quantMode is %lld, but must be -1 (none) or 1 (dynamic).", static_cast<long long>(a.quantMode));
  check_routing(r, a.activeNum);
  check_quantization(r);
  require(a.activeNum == r.slots(), "activeNum is %lld, but must be rows * k = %lld.", static_cast<long long>(a.activeNum),
          static_cast<long long>(r.slots()));
  require(a.expertNum <= kMostExperts, "expertNum is %lld, but must be at most 10240.", static_cast<long long>(a.expertNum));
  require(r.first_expert >= 0 && r.first_expert < r.end_expert && r.end_expert <= a.expertNum,
          "activeExpertRange must lie within [0, expertNum], which is %lld.", static_cast<long long>(a.expertNum));
  if (!a.expertTokensNumFlag) return;
  require(a.expertTokensNumType == kCount || a.expertTokensNumType == kKeyValue,
          "expertTokensNumType is %lld, but must be 1 (count) or 2 (key_value).",
          static_cast<long long>(a.expertTokensNumType));
  const int64_t experts = a.expertTokensNumType == kCount ? r.end_expert - r.first_expert : a.expertNum;
  require_dtype(a.expertTokensCountOrCumsumOut, "expertTokensCountOrCumsumOut", {ACL_INT64});
  require_sizes(a.expertTokensCountOrCumsumOut, "expertTokensCountOrCumsumOut",
                a.expertTokensNumType == kCount ? Dims{experts} : Dims{experts, 2});
}
ACLNN_KERNEL(MoeInitRoutingV3) {
  const Routing r = routing_of(a);
  const auto counts = route(r);
  if (!a.expertTokensNumFlag) return;
  if (a.expertTokensNumType == kKeyValue) {
    store_key_values(a.expertTokensCountOrCumsumOut, counts, r.first_expert);
  } else {
    store_counts(a.expertTokensCountOrCumsumOut, counts, false);
  }
}

// The first version: row_idx [rows, k] numbers the slots, first choices first.
ACLNN_CHECK(MoeInitRouting) {
  require_rank(a.x, "x", 2, 2);
  require_dtype(a.x, "x", {ACL_FLOAT16, ACL_BF16, ACL_FLOAT});
  require_dtype(a.rowIdx, "rowIdx", {ACL_INT32});
  require_dtype(a.expertIdx, "expertIdx", {ACL_INT32});
  require_rank(a.expertIdx, "expertIdx", 2, 2);
  require_sizes(a.rowIdx, "rowIdx", a.expertIdx.sizes);
  require(a.x.sizes[0] == a.expertIdx.sizes[0], "x has %lld rows and expertIdx %lld, but they must be equal.",
          static_cast<long long>(a.x.sizes[0]), static_cast<long long>(a.expertIdx.sizes[0]));
  require(a.activeNum >= 0, "activeNum is %lld, but must be at least 0.", static_cast<long long>(a.activeNum));
  require_same_dtype(a.expandedXOut, "expandedXOut", a.x, "x");
  const int64_t rows = std::min(a.activeNum, a.x.sizes[0]) * a.expertIdx.sizes[1];
  require_sizes(a.expandedXOut, "expandedXOut", {rows, a.x.sizes[1]});
  for (const TensorView* index : {&a.expandedRowIdxOut, &a.expandedExpertIdxOut}) {
    require_dtype(*index, "expandedRowIdxOut and expandedExpertIdxOut", {ACL_INT32});
    require_sizes(*index, "expandedRowIdxOut and expandedExpertIdxOut", {a.expertIdx.numel()});
  }
}
ACLNN_KERNEL(MoeInitRouting) {
  const std::vector<int64_t> experts = int_values(a.expertIdx), rows = int_values(a.rowIdx);
  std::vector<int64_t> order(experts.size()), sorted(experts.size()), position(experts.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t p, int64_t q) { return experts[p] < experts[q]; });
  const DenseInput x(a.x);
  const int64_t row_bytes = a.x.sizes[1] * element_bits(a.x.dtype) / 8;
  for (int64_t i = 0; i < static_cast<int64_t>(order.size()); ++i) {
    const int64_t slot = rows[order[i]];
    if (slot < 0 || slot >= static_cast<int64_t>(order.size())) {
      fail(kAicoreException, "rowIdx has %lld, but there are %zu slots.", static_cast<long long>(slot), order.size());
    }
    sorted[i] = experts[order[i]];
    position[slot] = i;
    if (i >= a.expandedXOut.sizes[0]) continue;
    std::memcpy(a.expandedXOut.data_as<char>() + i * row_bytes, x.data_as<char>() + slot % a.x.sizes[0] * row_bytes, row_bytes);
  }
  store_values(a.expandedRowIdxOut, position);
  store_values(a.expandedExpertIdxOut, sorted);
}

}  // namespace emulator::aclnn
