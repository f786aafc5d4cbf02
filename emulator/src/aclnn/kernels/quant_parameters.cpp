#include "aclnn/kernels/quant_parameters.h"

#include <cstring>

#include "aclnn/kernels/contiguous.h"
#include "math/convert.h"

namespace emulator::aclnn {

float scale_of_parameter(uint64_t parameter) {
  const auto bits = static_cast<uint32_t>(parameter) & 0xffffe000u;
  float scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return scale;
}

std::vector<float> column_values(const TensorView& tensor, int64_t count) {
  const DenseInput input(tensor);
  std::vector<float> values(tensor.numel());
  if (tensor.dtype == ACL_INT64 || tensor.dtype == ACL_UINT64) {
    const auto* parameters = input.data_as<uint64_t>();
    for (size_t i = 0; i < values.size(); ++i) values[i] = scale_of_parameter(parameters[i]);
  } else {
    to_float(input.data(), tensor.dtype, values.data(), tensor.numel());
  }
  if (values.size() == 1) values.resize(count, values[0]);
  return values;
}

void Dequantization::apply(int32_t* sums, int64_t n, float row_scale, void* out, aclDataType dtype) const {
  if (int_bias != nullptr) {
    for (int64_t i = 0; i < n; ++i) sums[i] += int_bias[i];
  }
  if (dtype == ACL_INT32) {
    std::memcpy(out, sums, n * sizeof(int32_t));
    return;
  }
  std::vector<float> row(n);
  for (int64_t i = 0; i < n; ++i) row[i] = static_cast<float>(sums[i]) * column_scale[i] * row_scale;
  if (!float_bias.empty()) {
    for (int64_t i = 0; i < n; ++i) row[i] += float_bias[i];
  }
  from_float(row.data(), out, dtype, n);
}

}  // namespace emulator::aclnn
