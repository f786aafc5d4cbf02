// RmsNorm of layer type NORM with static int8 quantization, the only form that torch_npu sends:
// q = round((x / rms(x) * gamma + beta) / scale + offset), saturated.
#include <algorithm>
#include <cmath>
#include <memory>

#include "atb/operation.h"
#include "math/convert.h"
#include "math/norm.h"

namespace emulator {
namespace {

using ::atb::TensorDesc;
using Parameters = ::atb::infer::RmsNormParam;

class RmsNormOperation final : public AtbOperation {
 public:
  explicit RmsNormOperation(const Parameters& parameters) : AtbOperation("RmsNormOperation"), parameters_(parameters) {
    const auto invalid = ::atb::ERROR_INVALID_PARAM;
    const auto& norm = parameters.normParam;
    require(norm.epsilon > 0, invalid, "epsilon must be positive.");
    require(parameters.layerType == Parameters::RMS_NORM_NORM && norm.quantType == ::atb::infer::QUANT_INT8 &&
                norm.dynamicQuantType == ::atb::infer::DYNAMIC_QUANT_UNDEFINED,
            invalid, "the emulator implements RMS_NORM_NORM with QUANT_INT8 only: torch_npu sends no other form.");
    require(!norm.rstd && norm.precisionMode == Parameters::HIGH_PRECISION_MODE &&
                norm.modelType == Parameters::LLAMA_MODEL,
            invalid, "rstd, precisionMode and modelType cannot be set with quantization.");
  }

 protected:
  size_t input_count() const override { return 5; }  // x, gamma, beta, scale, offset

  std::vector<Combination> combinations() const override {
    std::vector<Combination> result;
    for (aclDataType dtype : {ACL_FLOAT16, ACL_BF16}) {
      const Kind values{dtype, ACL_FORMAT_ND}, quantized{ACL_INT8, ACL_FORMAT_ND};
      result.push_back({values, values, values, values, quantized, quantized});
    }
    return result;
  }

  void check_inputs(const Descs& inputs) const override {
    const auto status = ::atb::ERROR_INVALID_TENSOR_DIM;
    const int64_t width = inputs[0].shape.dims[inputs[0].shape.dimNum - 1];
    require(element_count(inputs[1]) == width, status, "gamma must be as wide as x.");
    require(same_desc(inputs[1], inputs[2]), status, "gamma and beta must have one shape.");
    require(element_count(inputs[3]) == 1 && element_count(inputs[4]) == 1, status,
            "scale and offset must have one element.");
  }

  Descs infer(const Descs& inputs) const override {
    TensorDesc output = inputs[0];
    output.dtype = ACL_INT8;
    return {output};
  }

  TaskPtr launch(const Tensors& inputs, const Tensors& outputs) const override {
    Work work;
    for (const auto& input : inputs) work.read_bytes += input.dataSize;
    work.written_bytes = outputs[0].dataSize;
    work.vector_flops = 6.0 * element_count(inputs[0].desc);
    const ::atb::Tensor x = inputs[0], gamma = inputs[1], beta = inputs[2], scale = inputs[3], offset = inputs[4];
    return std::make_shared<FunctionTask>(
        "RmsNorm", work, [=, y = outputs[0], epsilon = parameters_.normParam.epsilon] {
          const int64_t count = element_count(x.desc);
          std::vector<float> normalized(count);
          RmsNorm norm;
          norm.cols = element_count(gamma.desc);
          norm.rows = count / norm.cols;
          norm.dtype = norm.gamma_dtype = x.desc.dtype;
          norm.x = device_data(x);
          norm.gamma = device_data(gamma);
          norm.bias = device_data(beta);
          norm.epsilon = epsilon;
          norm.y_float = normalized.data();
          rms_norm(norm);
          const float inverse_scale = 1.0f / load_float(device_data(scale), scale.desc.dtype, 0);
          const float shift = load_float(device_data(offset), ACL_INT8, 0);
          for (float& value : normalized) value = value * inverse_scale + shift;
          from_float(normalized.data(), device_data(y), ACL_INT8, count);
        });
  }

 private:
  Parameters parameters_;
};

}  // namespace
}  // namespace emulator

template <>
atb::Status atb::CreateOperation(const infer::RmsNormParam& parameters, Operation** operation) {
  return emulator::create<emulator::RmsNormOperation>("RmsNormOperation", parameters, operation);
}
