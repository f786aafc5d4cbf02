// Linear: y = op(x) op(weight) [+ bias], or accumulated into a float32 tensor (enAccum).
#include <memory>

#include "atb/operation.h"
#include "core/cost.h"
#include "math/gemm.h"

namespace emulator {
namespace {

using ::atb::TensorDesc;
using Parameters = ::atb::infer::LinearParam;

class Linear final : public AtbOperation {
 public:
  explicit Linear(const Parameters& parameters) : AtbOperation("LinearOperation"), parameters_(parameters) {
    const auto invalid = ::atb::ERROR_INVALID_PARAM;
    require(!parameters.enAccum || on_a2_or_a3(), invalid, "enAccum is supported on Atlas A2 and A3 only.");
    require(!parameters.enAccum || !parameters.hasBias, invalid, "enAccum and hasBias exclude each other.");
    require(parameters.outDataType == ACL_DT_UNDEFINED, invalid,
            "the emulator implements no quantized Linear: torch_npu sends none.");
  }

 protected:
  size_t input_count() const override { return parameters_.hasBias || parameters_.enAccum ? 3 : 2; }

  std::vector<Combination> combinations() const override {
    std::vector<Combination> result;
    for (aclDataType dtype : {ACL_FLOAT16, ACL_BF16}) {
      const Kind values{dtype, ACL_FORMAT_ND}, sums{ACL_FLOAT, ACL_FORMAT_ND};
      if (parameters_.enAccum) {
        result.push_back({values, values, sums, sums});
      } else if (parameters_.hasBias) {
        result.push_back({values, values, values, values});
      } else {
        result.push_back({values, values, values});
      }
    }
    return result;
  }

  void check_inputs(const Descs& inputs) const override {
    require(inputs[0].shape.dimNum == 2 && inputs[1].shape.dimNum == 2, ::atb::ERROR_INVALID_TENSOR_DIM_NUM,
            "x and weight must have two dimensions.");
    const int64_t k = inputs[1].shape.dims[parameters_.transposeB ? 1 : 0];
    require(inputs[0].shape.dims[parameters_.transposeA ? 0 : 1] == k, ::atb::ERROR_INVALID_TENSOR_DIM,
            "x and weight do not agree in the contracted dimension.");
    const TensorDesc output = infer(inputs)[0];
    if (parameters_.enAccum) {
      require(same_desc(inputs[2], output), ::atb::ERROR_INVALID_TENSOR_DIM,
              "the accumulator must have the output's shape.");
    } else if (parameters_.hasBias) {
      require(element_count(inputs[2]) == output.shape.dims[1], ::atb::ERROR_INVALID_TENSOR_DIM,
              "bias must have n elements.");
    }
  }

  Descs infer(const Descs& inputs) const override {
    TensorDesc output = inputs[0];
    output.dtype = parameters_.enAccum ? ACL_FLOAT : inputs[0].dtype;
    output.shape.dims[0] = inputs[0].shape.dims[parameters_.transposeA ? 1 : 0];
    output.shape.dims[1] = inputs[1].shape.dims[parameters_.transposeB ? 0 : 1];
    return {output};
  }

  TaskPtr launch(const Tensors& inputs, const Tensors& outputs) const override {
    const ::atb::Tensor x = inputs[0], weight = inputs[1], y = outputs[0];
    const ::atb::Tensor third = input_count() == 3 ? inputs[2] : ::atb::Tensor();
    const int64_t k = weight.desc.shape.dims[parameters_.transposeB ? 1 : 0];
    Work work;
    work.cube_flops = product_flops(y.desc.shape.dims[0], y.desc.shape.dims[1], k);
    for (const auto& input : inputs) work.read_bytes += input.dataSize;
    work.written_bytes = y.dataSize;
    return std::make_shared<FunctionTask>("Linear", work, [=, parameters = parameters_] {
      const auto &out = y.desc.shape.dims, &in = x.desc.shape.dims;
      Gemm product;
      product.m = out[0];
      product.n = out[1];
      product.k = k;
      product.a = device_data(x);
      product.a_dtype = x.desc.dtype;
      product.a_row_stride = parameters.transposeA ? 1 : in[1];
      product.a_col_stride = parameters.transposeA ? in[1] : 1;
      const int64_t row_stride = weight.desc.shape.dims[1];
      product.b = parameters.transposeB ? row_major_transposed(device_data(weight), weight.desc.dtype, row_stride)
                                        : row_major(device_data(weight), weight.desc.dtype, row_stride);
      product.c = device_data(y);
      product.c_dtype = y.desc.dtype;
      product.c_row_stride = out[1];
      if (parameters.enAccum) {
        product.beta = 1.0f;
        product.d = device_data(third);
        product.d_dtype = ACL_FLOAT;
        product.d_row_stride = out[1];
      } else if (parameters.hasBias) {
        product.bias = device_data(third);
        product.bias_dtype = third.desc.dtype;
      }
      gemm(product);
    });
  }

 private:
  Parameters parameters_;
};

}  // namespace
}  // namespace emulator

template <>
atb::Status atb::CreateOperation(const infer::LinearParam& parameters, Operation** operation) {
  return emulator::create<emulator::Linear>("LinearOperation", parameters, operation);
}
