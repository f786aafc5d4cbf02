// Rope: rotates queries and keys in one launch. The width of cos and sin is the head size, whatever the model's is: a
// partial rotary dimension rotates every slice of that width (ascend-transformer-boost, ops_infer/rope).
#include <memory>

#include "atb/operation.h"
#include "math/rope.h"

namespace emulator {
namespace {

using ::atb::TensorDesc;
using Parameters = ::atb::infer::RopeParam;

int64_t tokens_of(const TensorDesc& desc) {
  return desc.shape.dimNum == 4 ? desc.shape.dims[0] * desc.shape.dims[1] : desc.shape.dims[0];
}

int64_t width_of(const TensorDesc& desc) { return element_count(desc) / tokens_of(desc); }

// rotaryCoeff divides a head into parts of head_size / rotaryCoeff; neighbouring parts rotate into each other.
void rotate(const Parameters& parameters, const ::atb::Tensor& x, const ::atb::Tensor& y, const ::atb::Tensor& cos,
            const ::atb::Tensor& sin) {
  const int64_t dim = cos.desc.shape.dims[1];
  const int64_t group = 2 * dim / parameters.rotaryCoeff;
  const bool interleaved = group == 2;
  const int64_t element_bytes = element_bits(x.desc.dtype) / 8;
  const int64_t table_bytes = element_bits(cos.desc.dtype) / 8;
  Rope task;
  task.tokens = tokens_of(x.desc);
  task.heads = width_of(x.desc) / dim;
  task.dim = task.rotary_dim = interleaved ? dim : group;
  task.style = interleaved ? RopeStyle::kInterleaved : RopeStyle::kHalf;
  task.dtype = x.desc.dtype;
  task.x_token_stride = task.y_token_stride = width_of(x.desc);
  task.x_head_stride = task.y_head_stride = dim;
  task.table_dtype = cos.desc.dtype;
  task.table_token_stride = dim;
  for (int64_t begin = 0; begin < dim; begin += task.dim) {
    task.x = static_cast<const char*>(device_data(x)) + begin * element_bytes;
    task.y = static_cast<char*>(device_data(y)) + begin * element_bytes;
    task.cos = static_cast<const char*>(device_data(cos)) + begin * table_bytes;
    task.sin = static_cast<const char*>(device_data(sin)) + begin * table_bytes;
    rope(task);
  }
}

class RopeOperation final : public AtbOperation {
 public:
  explicit RopeOperation(const Parameters& parameters) : AtbOperation("RopeOperation"), parameters_(parameters) {
    require(parameters.cosFormat == 0, ::atb::ERROR_INVALID_PARAM,
            "the emulator implements cosFormat 0 only (1 is for training).");
  }

 protected:
  size_t input_count() const override { return 5; }  // query, key, cos, sin, sequence lengths
  size_t output_count() const override { return 2; }

  std::vector<Combination> combinations() const override {
    std::vector<Combination> result;
    for (aclDataType length : {ACL_INT32, ACL_UINT32}) {
      for (auto [dtype, table] :
           {std::pair{ACL_FLOAT16, ACL_FLOAT16}, {ACL_FLOAT16, ACL_FLOAT}, {ACL_BF16, ACL_BF16}}) {
        const Kind values{dtype, ACL_FORMAT_ND}, tables{table, ACL_FORMAT_ND}, lengths{length, ACL_FORMAT_ND};
        result.push_back({values, values, tables, tables, lengths, values, values});
      }
    }
    return result;
  }

  void check_inputs(const Descs& inputs) const override {
    const TensorDesc &query = inputs[0], &key = inputs[1], &cos = inputs[2], &sin = inputs[3], &lengths = inputs[4];
    const auto dim_status = ::atb::ERROR_INVALID_TENSOR_DIM;
    const auto size_status = ::atb::ERROR_INVALID_TENSOR_SIZE;
    const auto is_2d_or_4d = [](const TensorDesc& desc) { return desc.shape.dimNum == 2 || desc.shape.dimNum == 4; };
    require(is_2d_or_4d(query) && is_2d_or_4d(key) && cos.shape.dimNum == 2 && sin.shape.dimNum == 2 &&
                lengths.shape.dimNum == 1,
            dim_status, "query and key must be 2-D or 4-D, cos and sin 2-D, and the sequence lengths 1-D.");
    require(tokens_of(query) == tokens_of(key), size_status, "query and key have different numbers of tokens.");
    const int64_t dim = cos.shape.dims[1];
    require(dim >= 16 && dim <= 4096, dim_status, "the width of cos must be 16 to 4096.");
    require(cos.shape.dims[0] == sin.shape.dims[0] && dim == sin.shape.dims[1], size_status,
            "cos and sin have different shapes.");
    require(cos.shape.dims[0] >= tokens_of(query), size_status, "cos needs one row a token.");
    require(width_of(query) % width_of(key) == 0, size_status, "the query's width must be a multiple of the key's.");
    require(width_of(key) % dim == 0, dim_status, "the key's width must be a multiple of the width of cos.");
    const int coefficient = parameters_.rotaryCoeff;
    if (coefficient != 2 && coefficient != 4 && coefficient != dim) {
      reject(::atb::ERROR_INVALID_PARAM, "rotaryCoeff must be 2, 4 or the width of cos (%lld), not %d.", (long long)dim,
             coefficient);
    }
    require(dim % coefficient == 0, ::atb::ERROR_INVALID_PARAM, "the width of cos must be a multiple of rotaryCoeff.");
  }

  Descs infer(const Descs& inputs) const override { return {inputs[0], inputs[1]}; }

  TaskPtr launch(const Tensors& inputs, const Tensors& outputs) const override {
    Work work;
    for (int i = 0; i < 4; ++i) work.read_bytes += inputs[i].dataSize;
    work.written_bytes = outputs[0].dataSize + outputs[1].dataSize;
    work.vector_flops = 3.0 * (element_count(inputs[0].desc) + element_count(inputs[1].desc));
    const ::atb::Tensor query = inputs[0], key = inputs[1], cos = inputs[2], sin = inputs[3];
    const ::atb::Tensor query_out = outputs[0], key_out = outputs[1];
    return std::make_shared<FunctionTask>("Rope", work, [=, parameters = parameters_] {
      rotate(parameters, query, query_out, cos, sin);
      rotate(parameters, key, key_out, cos, sin);
    });
  }

 private:
  Parameters parameters_;
};

}  // namespace
}  // namespace emulator

template <>
atb::Status atb::CreateOperation(const infer::RopeParam& parameters, Operation** operation) {
  return emulator::create<emulator::RopeOperation>("RopeOperation", parameters, operation);
}
