// GroupTopk: keeps the scores of the k best groups of experts of every token and zeroes the others, in place.
#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>

#include "atb/operation.h"
#include "math/convert.h"

namespace emulator {
namespace {

using Parameters = ::atb::infer::GroupTopkParam;

// A group's rank is the sum of its `best` largest scores; the lower index wins a tie.
std::vector<int64_t> ranked_groups(const float* scores, int64_t groups, int64_t group_size, int64_t best) {
  std::vector<float> sums(groups);
  for (int64_t group = 0; group < groups; ++group) {
    std::vector<float> members(scores + group * group_size, scores + (group + 1) * group_size);
    std::partial_sort(members.begin(), members.begin() + best, members.end(), std::greater<float>());
    sums[group] = std::accumulate(members.begin(), members.begin() + best, 0.0f);
  }
  std::vector<int64_t> order(groups);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return sums[a] > sums[b]; });
  return order;
}

class GroupTopk final : public AtbOperation {
 public:
  explicit GroupTopk(const Parameters& parameters) : AtbOperation("GroupTopkOperation"), parameters_(parameters) {
    const auto invalid = ::atb::ERROR_INVALID_PARAM;
    require(on_a2_or_a3(), invalid, "GroupTopk is supported on Atlas A2 and A3 only.");
    require(parameters.groupNum >= 1 && parameters.k >= 1 && parameters.k <= parameters.groupNum, invalid,
            "1 <= k <= groupNum does not hold.");
    require(parameters.groupMultiFlag <= Parameters::SUM_MULTI_MAX, invalid, "groupMultiFlag is unknown.");
    require(!sums() || parameters.n >= 1, invalid, "n must be positive with SUM_MULTI_MAX.");
  }

 protected:
  size_t input_count() const override { return 2; }  // scores, indices 0..1023

  std::vector<Combination> combinations() const override {
    std::vector<Combination> result;
    for (aclDataType dtype : {ACL_FLOAT16, ACL_BF16}) {
      const Kind scores{dtype, ACL_FORMAT_ND};
      result.push_back({scores, {ACL_INT32, ACL_FORMAT_ND}, scores});
    }
    return result;
  }

  void check_inputs(const Descs& inputs) const override {
    require(inputs[0].shape.dimNum == 2 && inputs[1].shape.dimNum == 1, ::atb::ERROR_INVALID_TENSOR_DIM_NUM,
            "the scores must be [tokens, experts] and the indices 1-D.");
    const int64_t experts = inputs[0].shape.dims[1];
    require(experts <= 1024, ::atb::ERROR_INVALID_TENSOR_DIM, "at most 1024 experts are supported.");
    require(inputs[1].shape.dims[0] == 1024, ::atb::ERROR_INVALID_TENSOR_DIM, "there must be 1024 indices.");
    require(experts % parameters_.groupNum == 0, ::atb::ERROR_INVALID_PARAM,
            "the experts must divide into groupNum groups.");
    require(!sums() || parameters_.n <= experts / parameters_.groupNum, ::atb::ERROR_INVALID_PARAM,
            "n must not exceed the size of a group.");
  }

  Descs infer(const Descs& inputs) const override { return {inputs[0]}; }

  TaskPtr launch(const Tensors& inputs, const Tensors& outputs) const override {
    Work work;
    work.read_bytes = inputs[0].dataSize;
    work.written_bytes = outputs[0].dataSize;
    work.vector_flops = 4.0 * element_count(inputs[0].desc);
    const int64_t best = sums() ? parameters_.n : 1;
    return std::make_shared<FunctionTask>(
        "GroupTopk", work, [=, x = inputs[0], y = outputs[0], parameters = parameters_] {
          const int64_t tokens = x.desc.shape.dims[0], experts = x.desc.shape.dims[1];
          const int64_t group_size = experts / parameters.groupNum;
          std::vector<float> scores(tokens * experts);
          to_float(device_data(x), x.desc.dtype, scores.data(), tokens * experts);
          for (int64_t token = 0; token < tokens; ++token) {
            float* row = scores.data() + token * experts;
            const auto order = ranked_groups(row, parameters.groupNum, group_size, best);
            for (size_t i = parameters.k; i < order.size(); ++i)
              std::fill_n(row + order[i] * group_size, group_size, 0.0f);
          }
          from_float(scores.data(), device_data(y), y.desc.dtype, tokens * experts);
        });
  }

 private:
  bool sums() const { return parameters_.groupMultiFlag == Parameters::SUM_MULTI_MAX; }

  Parameters parameters_;
};

}  // namespace
}  // namespace emulator

template <>
atb::Status atb::CreateOperation(const infer::GroupTopkParam& parameters, Operation** operation) {
  return emulator::create<emulator::GroupTopk>("GroupTopkOperation", parameters, operation);
}
