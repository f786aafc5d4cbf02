// The operators that torch_npu launches through aclop where a tensor is in FRACTAL_NZ on Ascend 310P, or two chips take
// part. Semantics: op-plugin's op_plugin/ops/aclops, which calls them, and CANN's operator prototypes (ops-math,
// ops-nn: op_graph/*_proto.h).
#include "aclop/operators.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <unordered_map>

#include "core/clock.h"
#include "core/errors.h"
#include "math/gemm.h"

namespace emulator::aclop {
namespace {

using Values = std::vector<Dense>;
using Compute = std::function<void(const Values& inputs, Dense& output)>;

int64_t attribute(const Call& call, const char* name, int64_t fallback = 0) {
  const auto found = call.attributes.whole_numbers.find(name);
  return found == call.attributes.whole_numbers.end() ? fallback : found->second;
}

void require_that(bool condition, const char* type, const char* rule) {
  if (!condition) fail(ACL_ERROR_INVALID_PARAM, "%s: %s.", type, rule);
}

// Reads all inputs, computes on row-major arrays and writes the output in its own format.
class DenseTask final : public Task {
 public:
  DenseTask(const char* name, const Call& call, Compute compute, double cube_flops = 0)
      : name_(name), call_(call), compute_(std::move(compute)), cube_flops_(cube_flops) {
    check();
  }

  const char* name() const override { return name_; }

  void run() override {
    check();  // of a captured call: what was there may have been given back
    Values inputs;
    for (const Operand& input : call_.inputs) inputs.push_back(read(input));
    const Operand& target = call_.outputs[0];
    Dense output = make_dense(target.desc.dtype, target.desc.sizes);
    compute_(inputs, output);
    write(target, output);
  }

  void run_without_compute() override {
    if (static_cast<size_t>(storage_bytes(call_.outputs[0].desc)) <= kHostVisibleBytes) run();
  }

  Work work() const override {
    Work work;
    for (const Operand& input : call_.inputs) work.read_bytes += static_cast<double>(storage_bytes(input.desc));
    work.written_bytes = static_cast<double>(storage_bytes(call_.outputs[0].desc));
    work.cube_flops = cube_flops_;
    return work;
  }

 private:
  void check() const {
    for (const Operand& input : call_.inputs) check_operand(input, "an input");
    check_operand(call_.outputs[0], "the output");
  }

  const char* const name_;
  const Call call_;
  const Compute compute_;
  const double cube_flops_;
};

TaskPtr make_cast(const Call& call) {
  require_operands(call, 1, 1);
  const aclTensorDesc &from = call.inputs[0].desc, &to = call.outputs[0].desc;
  require_that(from.sizes.product() == to.sizes.product(), "Cast", "the input and the output differ in size");
  const bool whole = is_whole(from.dtype) && is_whole(to.dtype);
  return std::make_shared<DenseTask>("Cast", call, [whole](const Values& inputs, Dense& output) {
    for (int64_t i = 0; i < output.count(); ++i) {
      if (whole) {
        put_whole(output, i, whole_at(inputs[0], i));
      } else {
        put_number(output, i, number_at(inputs[0], i));
      }
    }
  });
}

TaskPtr make_fill(const Call& call) {  // inputs: the sizes, one value
  require_operands(call, 2, 1);
  const aclTensorDesc &value = call.inputs[1].desc, &to = call.outputs[0].desc;
  require_that(value.sizes.product() == 1, "Fill", "the value is not one element");
  require_that(value.dtype == to.dtype, "Fill", "the value and the output differ in type");
  return std::make_shared<DenseTask>("Fill", call, [](const Values& inputs, Dense& output) {
    const std::vector<char>& one = inputs[1].bytes;
    for (size_t at = 0; at < output.bytes.size(); at += one.size())
      std::memcpy(output.bytes.data() + at, one.data(), one.size());
  });
}

TaskPtr make_zeros_like(const Call& call) {
  require_operands(call, 1, 1);
  return std::make_shared<DenseTask>("ZerosLike", call, [](const Values&, Dense&) {});
}

// A walk over elements of an input: `counts` steps of `strides` elements in each dimension, from `first`.
struct Walk {
  int64_t first = 0;
  std::vector<int64_t> counts, strides;

  int64_t total() const {
    int64_t product = 1;
    for (const int64_t count : counts) product *= count;
    return product;
  }
  int64_t operator[](int64_t step) const {
    int64_t at = first;
    for (size_t dim = counts.size(); dim-- > 0; step /= counts[dim]) at += step % counts[dim] * strides[dim];
    return at;
  }
};

bool lies_within(const Walk& walk, int64_t count) {
  int64_t least = walk.first, most = walk.first;
  for (size_t dim = 0; dim < walk.counts.size(); ++dim)
    (walk.strides[dim] < 0 ? least : most) += (walk.counts[dim] - 1) * walk.strides[dim];
  return walk.total() == 0 || (least >= 0 && most < count);
}

// The elements of the first input that are walked over become the output, one behind another.
TaskPtr make_walk(const char* type, const Call& call, const Walk& walk) {
  const aclTensorDesc &from = call.inputs[0].desc, &to = call.outputs[0].desc;
  require_that(from.dtype == to.dtype, type, "the input and the output differ in type");
  require_that(walk.total() == to.sizes.product(), type, "the output has not the sizes of the result");
  require_that(lies_within(walk, from.sizes.product()), type, "elements lie outside of the input");
  return std::make_shared<DenseTask>(type, call, [walk](const Values& inputs, Dense& output) {
    const auto width = static_cast<size_t>(element_bits(output.dtype) / 8);
    for (int64_t i = 0; i < output.count(); ++i) {
      std::memcpy(output.bytes.data() + static_cast<size_t>(i) * width,
                  inputs[0].bytes.data() + static_cast<size_t>(walk[i]) * width, width);
    }
  });
}

// Whole numbers that an operator is given in host memory.
std::vector<int64_t> numbers(const char* type, const Operand& input) {
  require_that(input.on_host(), type, "sizes, steps or an axis are not in host memory");
  check_operand(input, "an input in host memory");
  const Dense values = read(input);
  std::vector<int64_t> result;
  for (int64_t i = 0; i < values.count(); ++i) result.push_back(whole_at(values, i));
  return result;
}

// Elements between neighbors in each dimension of a row-major tensor.
std::vector<int64_t> strides_of(const Dims& sizes) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (int dim = sizes.rank() - 2; dim >= 0; --dim)
    strides[static_cast<size_t>(dim)] = strides[static_cast<size_t>(dim) + 1] * sizes[dim + 1];
  return strides;
}

// inputs: x, begin, end, strides. A bit of begin_mask or end_mask opens that bound; one of shrink_axis_mask takes the
// element at begin and leaves its dimension out.
TaskPtr make_strided_slice(const Call& call) {
  const char* type = "StridedSlice";
  require_operands(call, 4, 1);
  const Dims& sizes = call.inputs[0].desc.sizes;
  for (const char* mask : {"ellipsis_mask", "new_axis_mask"})
    require_that(attribute(call, mask) == 0, type, "ellipses and new axes are not emulated");
  const auto begins = numbers(type, call.inputs[1]), ends = numbers(type, call.inputs[2]);
  const auto steps = numbers(type, call.inputs[3]);
  const auto rank = static_cast<size_t>(sizes.rank());
  require_that(begins.size() == rank && ends.size() == rank && steps.size() == rank, type,
               "begin, end and strides have not one element a dimension");
  const auto strides = strides_of(sizes);
  Walk walk;
  for (size_t dim = 0; dim < rank; ++dim) {
    const int64_t size = sizes[static_cast<int>(dim)], step = steps[dim];
    require_that(step > 0, type, "a stride is not positive");
    const auto bound = [&](int64_t value, const char* mask, int64_t open) {
      if (attribute(call, mask) >> dim & 1) return open;
      return std::clamp<int64_t>(value < 0 ? value + size : value, 0, size);
    };
    const bool shrinks = attribute(call, "shrink_axis_mask") >> dim & 1;
    const int64_t begin = bound(begins[dim], "begin_mask", 0);
    const int64_t end = shrinks ? std::min(begin + 1, size) : bound(ends[dim], "end_mask", size);
    walk.first += begin * strides[dim];
    walk.counts.push_back(end <= begin ? 0 : (end - begin + step - 1) / step);
    walk.strides.push_back(step * strides[dim]);
  }
  return make_walk(type, call, walk);
}

// inputs: x, the first element, how many; of each dimension.
TaskPtr make_slice(const Call& call) {
  const char* type = "Slice";
  require_operands(call, 3, 1);
  const Dims& sizes = call.inputs[0].desc.sizes;
  const auto offsets = numbers(type, call.inputs[1]);
  Walk walk{0, numbers(type, call.inputs[2]), strides_of(sizes)};
  require_that(offsets.size() == sizes.size() && walk.counts.size() == sizes.size(), type,
               "offsets and size have not one element a dimension");
  for (size_t dim = 0; dim < sizes.size(); ++dim) {
    const int64_t size = sizes[static_cast<int>(dim)];
    if (walk.counts[dim] == -1) walk.counts[dim] = size - offsets[dim];
    require_that(offsets[dim] >= 0 && walk.counts[dim] >= 0 && offsets[dim] + walk.counts[dim] <= size, type,
                 "a slice goes beyond its dimension");
    walk.first += offsets[dim] * walk.strides[dim];
  }
  return make_walk(type, call, walk);
}

// Sizes, strides and the first element's position, from input `index` on.
Walk given_walk(const char* type, const Call& call, size_t index) {
  const auto first = numbers(type, call.inputs[index + 2]);
  Walk walk{0, numbers(type, call.inputs[index]), numbers(type, call.inputs[index + 1])};
  require_that(first.size() == 1 && walk.counts.size() == walk.strides.size(), type,
               "sizes, strides and offset do not fit each other");
  for (const int64_t count : walk.counts) require_that(count >= 0, type, "a size is negative");
  walk.first = first[0];
  return walk;
}

// inputs: x, sizes, strides, the first element's position.
TaskPtr make_as_strided(const Call& call) {
  require_operands(call, 4, 1);
  return make_walk("AsStrided", call, given_walk("AsStrided", call, 1));
}

// inputs: the target with its sizes, strides and offset, the source with its own. The output is the target's memory.
TaskPtr make_view_copy(const Call& call) {
  const char* type = "ViewCopy";
  require_operands(call, 8, 1);
  const aclTensorDesc &target = call.inputs[0].desc, &source = call.inputs[4].desc;
  Call whole = call;  // the output is described as the view of the target that changes
  whole.outputs[0] = call.inputs[0];
  const Walk to = given_walk(type, call, 1), from = given_walk(type, call, 5);
  require_that(target.dtype == source.dtype, type, "target and source differ in type");
  require_that(call.outputs[0].buffer.data == call.inputs[0].buffer.data, type, "the output is not the target");
  require_that(to.total() == from.total(), type, "target and source differ in size");
  require_that(lies_within(to, target.sizes.product()) && lies_within(from, source.sizes.product()), type,
               "elements lie outside of their tensor");
  return std::make_shared<DenseTask>(type, whole, [to, from](const Values& inputs, Dense& output) {
    const auto width = static_cast<size_t>(element_bits(output.dtype) / 8);
    output.bytes = inputs[0].bytes;
    for (int64_t i = 0; i < to.total(); ++i) {
      std::memcpy(output.bytes.data() + static_cast<size_t>(to[i]) * width,
                  inputs[4].bytes.data() + static_cast<size_t>(from[i]) * width, width);
    }
  });
}

// inputs: x, the sizes to which it is repeated.
TaskPtr make_broadcast(const Call& call) {
  const char* type = "BroadcastTo";
  require_operands(call, 2, 1);
  const Dims& sizes = call.inputs[0].desc.sizes;
  Walk walk{0, numbers(type, call.inputs[1]), {}};
  require_that(walk.counts.size() >= sizes.size(), type, "the result has fewer dimensions than the input");
  walk.strides.assign(walk.counts.size() - sizes.size(), 0);
  const auto strides = strides_of(sizes);
  for (size_t dim = 0; dim < sizes.size(); ++dim) {
    const int64_t size = sizes[static_cast<int>(dim)], wanted = walk.counts[walk.strides.size()];
    require_that(size == wanted || size == 1, type, "a dimension is neither 1 nor the result's");
    walk.strides.push_back(size == wanted ? strides[dim] : 0);
  }
  return make_walk(type, call, walk);
}

// inputs: x, the order of its dimensions.
TaskPtr make_transpose(const Call& call) {
  const char* type = "Transpose";
  require_operands(call, 2, 1);
  const Dims& sizes = call.inputs[0].desc.sizes;
  const auto strides = strides_of(sizes);
  const auto order = numbers(type, call.inputs[1]);
  auto sorted = order;
  std::sort(sorted.begin(), sorted.end());
  bool is_order = sorted.size() == static_cast<size_t>(sizes.rank());
  for (size_t dim = 0; is_order && dim < sorted.size(); ++dim) is_order = sorted[dim] == static_cast<int64_t>(dim);
  require_that(is_order, type, "perm does not name each dimension once");
  Walk walk;
  for (const int64_t dim : order) {
    walk.counts.push_back(sizes[static_cast<int>(dim)]);
    walk.strides.push_back(strides[static_cast<size_t>(dim)]);
  }
  return make_walk(type, call, walk);
}

// inputs: x, indices, one axis.
TaskPtr make_gather(const Call& call) {
  require_operands(call, 3, 1);
  const aclTensorDesc &from = call.inputs[0].desc, &indices = call.inputs[1].desc, &to = call.outputs[0].desc;
  require_that(attribute(call, "batch_dims") == 0, "GatherV2", "batch_dims is not emulated");
  require_that(from.dtype == to.dtype, "GatherV2", "the input and the output differ in type");
  require_that(is_whole(indices.dtype), "GatherV2", "the indices are no whole numbers");
  const auto axes = numbers("GatherV2", call.inputs[2]);
  require_that(axes.size() == 1, "GatherV2", "the axis is not one number");
  const int64_t rank = from.sizes.rank(), axis = axes[0] < 0 ? axes[0] + rank : axes[0];
  require_that(axis >= 0 && axis < rank, "GatherV2", "the axis is not one of the input's");
  int64_t outer = 1, inner = 1;
  for (int i = 0; i < rank; ++i) (i < axis ? outer : inner) *= i == axis ? 1 : from.sizes[i];
  const int64_t lines = from.sizes[static_cast<int>(axis)], count = indices.sizes.product();
  require_that(to.sizes.product() == outer * count * inner, "GatherV2", "the output has not the sizes of the result");
  return std::make_shared<DenseTask>("GatherV2", call, [=](const Values& inputs, Dense& output) {
    const auto width = static_cast<size_t>(inner * element_bits(output.dtype) / 8);
    for (int64_t i = 0; i < outer * count; ++i) {
      const int64_t line = whole_at(inputs[1], i % count);
      if (line < 0 || line >= lines)
        fail(kAicoreException, "GatherV2: index %lld is not one of %lld.", (long long)line, (long long)lines);
      std::memcpy(output.bytes.data() + static_cast<size_t>(i) * width,
                  inputs[0].bytes.data() + static_cast<size_t>(i / count * lines + line) * width, width);
    }
  });
}

// out[b] = x1[b] x2[b], either operand transposed or not; batches of one matrix are repeated.
TaskPtr make_product(const char* type, const Call& call, const char* first, const char* second) {
  require_operands(call, 2, 1);
  const aclTensorDesc &a = call.inputs[0].desc, &b = call.inputs[1].desc, &c = call.outputs[0].desc;
  require_that(a.sizes.rank() >= 2 && b.sizes.rank() >= 2 && c.sizes.rank() >= 2, type, "an operand is no matrix");
  require_that(a.dtype == b.dtype && a.dtype == c.dtype, type, "the operands differ in type");
  require_that(a.dtype == ACL_FLOAT16 || a.dtype == ACL_FLOAT || a.dtype == ACL_BF16, type,
               "the operands are not of a floating type that the cube unit has");
  const bool a_turned = attribute(call, first) != 0, b_turned = attribute(call, second) != 0;
  const int64_t m = a.sizes.back(a_turned ? 0 : 1), k = a.sizes.back(a_turned ? 1 : 0);
  const int64_t n = b.sizes.back(b_turned ? 1 : 0);
  require_that(b.sizes.back(b_turned ? 0 : 1) == k, type, "the operands do not fit each other");
  require_that(c.sizes.back(1) == m && c.sizes.back(0) == n, type, "the output has not the sizes of the product");
  const auto matrices = [](const Dims& sizes) {
    const int64_t one = sizes.back(0) * sizes.back(1);
    return one == 0 ? 0 : sizes.product() / one;
  };
  const int64_t batch = matrices(c.sizes), of_a = matrices(a.sizes), of_b = matrices(b.sizes);
  require_that((of_a == batch || of_a == 1) && (of_b == batch || of_b == 1), type, "the batches differ");
  const auto compute = [=](const Values& inputs, Dense& output) {
    const int64_t width = element_bits(output.dtype) / 8;
    for (int64_t i = 0; i < batch; ++i) {
      Gemm product;
      product.m = m;
      product.n = n;
      product.k = k;
      product.a = inputs[0].bytes.data() + (of_a == 1 ? 0 : i) * m * k * width;
      product.a_dtype = product.c_dtype = output.dtype;
      product.a_row_stride = a_turned ? 1 : k;
      product.a_col_stride = a_turned ? m : 1;
      const char* right = inputs[1].bytes.data() + (of_b == 1 ? 0 : i) * k * n * width;
      product.b = b_turned ? row_major_transposed(right, output.dtype, k) : row_major(right, output.dtype, n);
      product.c = output.bytes.data() + i * m * n * width;
      product.c_row_stride = n;
      gemm(product);
    }
  };
  const double flops = 2.0 * static_cast<double>(batch) * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  return std::make_shared<DenseTask>(type, call, compute, flops);
}

TaskPtr make_matmul(const Call& call) { return make_product("MatMul", call, "transpose_x1", "transpose_x2"); }
TaskPtr make_batch_matmul(const Call& call) { return make_product("BatchMatMul", call, "adj_x1", "adj_x2"); }

}  // namespace

void require_operands(const Call& call, size_t inputs, size_t outputs) {
  if (call.inputs.size() != inputs || call.outputs.size() != outputs) {
    fail(ACL_ERROR_INVALID_PARAM, "the operator has %zu inputs and %zu outputs, but %zu and %zu were given.", inputs,
         outputs, call.inputs.size(), call.outputs.size());
  }
}

Make find_operator(const std::string& type) {
  static const std::unordered_map<std::string, Make> operators = {
      {"AsStrided", make_as_strided},
      {"BatchMatMul", make_batch_matmul},
      {"BroadcastTo", make_broadcast},
      {"Cast", make_cast},
      {"Fill", make_fill},
      {"GatherV2", make_gather},
      {"Identity", make_identity},
      {"MatMul", make_matmul},
      {"Slice", make_slice},
      {"StridedSlice", make_strided_slice},
      {"Transpose", make_transpose},
      {"ViewCopy", make_view_copy},
      {"ZerosLike", make_zeros_like},
  };
  const auto found = operators.find(type);
  return found == operators.end() ? nullptr : found->second;
}

}  // namespace emulator::aclop
