// Elewise of type QUANT_PER_CHANNEL, the only type that torch_npu sends: y = round(x / scale) + offset as int8.
#include <cmath>
#include <memory>

#include "atb/operation.h"
#include "math/convert.h"

namespace emulator {
namespace {

using ::atb::TensorDesc;
using Parameters = ::atb::infer::ElewiseParam;

class QuantPerChannel final : public AtbOperation {
 public:
  explicit QuantPerChannel(const Parameters& parameters) : AtbOperation("ElewiseOperation") {
    require(parameters.elewiseType == Parameters::ELEWISE_QUANT_PER_CHANNEL, ::atb::ERROR_INVALID_PARAM,
            "the emulator implements ELEWISE_QUANT_PER_CHANNEL only: torch_npu sends no other type.");
  }

 protected:
  size_t input_count() const override { return 3; }  // x, scale, offset
  bool may_be_empty(size_t input) const override { return input == 2; }

  std::vector<Combination> combinations() const override {
    std::vector<Combination> result;
    for (aclDataType dtype : {ACL_FLOAT16, ACL_BF16}) {
      const Kind values{dtype, ACL_FORMAT_ND}, quantized{ACL_INT8, ACL_FORMAT_ND};
      result.push_back({values, values, quantized, quantized});
    }
    return result;
  }

  // The scale's shape is the tail of x's, so that element i of x has scale i modulo its size.
  void check_inputs(const Descs& inputs) const override {
    const auto &x = inputs[0].shape, &scale = inputs[1].shape;
    bool is_tail = scale.dimNum <= x.dimNum;
    for (uint64_t i = 0; is_tail && i < scale.dimNum; ++i) {
      is_tail = scale.dims[scale.dimNum - 1 - i] == x.dims[x.dimNum - 1 - i];
    }
    require(is_tail || element_count(inputs[1]) == 1, ::atb::ERROR_INVALID_TENSOR_DIM,
            "scale must have the last dimensions of x, or one element.");
    const int64_t offsets = element_count(inputs[2]);
    require(offsets == 0 || offsets == element_count(inputs[1]), ::atb::ERROR_INVALID_TENSOR_DIM,
            "offset and scale have different sizes.");
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
    work.vector_flops = 3.0 * element_count(inputs[0].desc);
    return std::make_shared<FunctionTask>(
        "Elewise", work, [x = inputs[0], scale = inputs[1], offset = inputs[2], y = outputs[0]] {
          const int64_t count = element_count(x.desc), channels = element_count(scale.desc);
          std::vector<float> values(count), scales(channels), offsets(channels, 0.0f);
          to_float(device_data(x), x.desc.dtype, values.data(), count);
          to_float(device_data(scale), scale.desc.dtype, scales.data(), channels);
          if (offset.deviceData != nullptr) to_float(device_data(offset), ACL_INT8, offsets.data(), channels);
          for (int64_t i = 0; i < count; ++i) {
            values[i] = std::nearbyint(values[i] / scales[i % channels]) + offsets[i % channels];
          }
          from_float(values.data(), device_data(y), ACL_INT8, count);
        });
  }
};

}  // namespace
}  // namespace emulator

template <>
atb::Status atb::CreateOperation(const infer::ElewiseParam& parameters, Operation** operation) {
  return emulator::create<emulator::QuantPerChannel>("ElewiseOperation", parameters, operation);
}
