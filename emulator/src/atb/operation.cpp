#include "atb/operation.h"

#include <algorithm>
#include <cstdio>

#include "core/forms.h"
#include "core/memory.h"

namespace emulator {

using ::atb::Status;
using ::atb::TensorDesc;

void reject(::atb::ErrorType status, const char* format, ...) {
  char buffer[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(buffer, sizeof buffer, format, arguments);
  va_end(arguments);
  throw Failure(status, buffer);
}

Status atb_guarded(const std::string& operation, const std::function<void()>& body) noexcept {
  try {
    body();
    return ::atb::NO_ERROR;
  } catch (const Failure& failure) {
    // torch_npu reports only "setup failed!", so the reason has to reach the user through ATB's log, as with real ATB.
    fprintf(stderr, "[ERROR] [ATB] %s: %s (status %d)\n", operation.c_str(), failure.what(), failure.code());
    return report_current_exception(operation.c_str());
  } catch (const std::exception& other) {
    fprintf(stderr, "[ERROR] [ATB] %s: %s\n", operation.c_str(), other.what());
    report_current_exception(operation.c_str());
    return ::atb::ERROR_INTERNAL_ERROR;
  }
}

std::string describe(const TensorDesc& desc) {
  std::string text = std::string(dtype_name(desc.dtype)) + " " + format_name(desc.format) + " [";
  for (uint64_t i = 0; i < desc.shape.dimNum; ++i) text += (i ? ", " : "") + std::to_string(desc.shape.dims[i]);
  return text + "]";
}

bool same_desc(const TensorDesc& left, const TensorDesc& right) {
  return left.dtype == right.dtype && left.format == right.format && left.shape.dimNum == right.shape.dimNum &&
         std::equal(left.shape.dims, left.shape.dims + left.shape.dimNum, right.shape.dims);
}

int64_t element_count(const TensorDesc& desc) {
  int64_t count = desc.shape.dimNum == 0 ? 0 : 1;
  for (uint64_t i = 0; i < std::min<uint64_t>(desc.shape.dimNum, Dims::kMaxRank); ++i) {
    if (desc.shape.dims[i] < 0 || __builtin_mul_overflow(count, desc.shape.dims[i], &count)) return -1;  // no tensor's
  }
  return count;
}

void* device_data(const ::atb::Tensor& tensor) { return host_address(tensor.deviceData); }

Lengths::Lengths(const ::atb::Tensor& tensor) : count_(element_count(tensor.desc)) {
  if (tensor.hostData != nullptr) {
    const auto* values = static_cast<const int32_t*>(tensor.hostData);
    host_.assign(values, values + count_);
  } else {
    device_ = tensor.deviceData;
  }
}

std::vector<int32_t> Lengths::read() const {
  if (device_ == nullptr) return host_;
  const auto* values = static_cast<const int32_t*>(host_address(device_));
  return {values, values + count_};
}

namespace {

// ATB leaves absent optional tensors default-constructed.
bool is_empty(const TensorDesc& desc) { return desc.dtype == ACL_DT_UNDEFINED || desc.shape.dimNum == 0; }

template <typename Vector>
std::vector<TensorDesc> descs_of(const Vector& tensors) {
  std::vector<TensorDesc> descs;
  for (const auto& tensor : tensors) descs.push_back(tensor.desc);
  return descs;
}

bool matches(const Combination& combination, const std::vector<TensorDesc>& descs, size_t begin) {
  for (size_t i = 0; i < descs.size(); ++i) {
    const Kind& kind = combination.at(begin + i);
    if (!is_empty(descs[i]) && (descs[i].dtype != kind.dtype || descs[i].format != kind.format)) return false;
  }
  return true;
}

std::string list(const std::vector<TensorDesc>& descs) {
  std::string text;
  for (const auto& desc : descs) text += (text.empty() ? "" : ", ") + describe(desc);
  return text;
}

uint64_t next_serial() {
  static std::atomic<uint64_t> serials{0};
  return ++serials;
}

// The operation that this thread has set up last, and for which stream: threads may share an operation.
struct LatestSetup {
  uint64_t serial = 0;
  aclrtStream stream = nullptr;
};
thread_local LatestSetup t_latest_setup;

}  // namespace

AtbOperation::AtbOperation(const char* name) : name_(name), serial_(next_serial()) {}

aclrtStream AtbOperation::stream_of_setup() const {
  return t_latest_setup.serial == serial_ ? t_latest_setup.stream : latest_stream_.load();
}

void AtbOperation::check_descs(const Descs& inputs, const Descs& outputs) const {
  if (inputs.size() != input_count()) {
    reject(::atb::ERROR_INVALID_IN_TENSOR_NUM, "%zu input tensors were given, but these parameters need %zu.",
           inputs.size(), input_count());
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (is_empty(inputs[i]) && may_be_empty(i)) continue;
    if (inputs[i].shape.dimNum == 0 || inputs[i].shape.dimNum > 8) {
      reject(::atb::ERROR_INVALID_TENSOR_DIM, "input %zu must have 1 to 8 dimensions.", i);
    }
    if (element_count(inputs[i]) <= 0) {
      reject(::atb::ERROR_INVALID_TENSOR_SIZE, "input %zu (%s) is empty.", i, describe(inputs[i]).c_str());
    }
  }
  bool permitted = false;
  for (const auto& combination : combinations()) {
    permitted = permitted || (matches(combination, inputs, 0) && matches(combination, outputs, inputs.size()));
  }
  if (!permitted) {
    reject(::atb::ERROR_INVALID_TENSOR_INI_MATCH,
           "no supported combination of data types and formats on %s: inputs %s%s%s.", chip().soc_version,
           list(inputs).c_str(), outputs.empty() ? "" : "; outputs ", list(outputs).c_str());
  }
  for (const auto* descs : {&inputs, &outputs}) {
    for (const auto& desc : *descs) {
      if (desc.dtype == ACL_BF16 && !chip().has_bf16) {
        reject(::atb::ERROR_INVALID_TENSOR_DTYPE, "%s has no bfloat16; cast to float16.", chip().soc_version);
      }
    }
  }
  check_inputs(inputs);
}

Status AtbOperation::InferShape(const ::atb::SVector<TensorDesc>& inputs, ::atb::SVector<TensorDesc>& outputs) const {
  return atb_guarded(name_, [&] {
    const Descs descs(inputs.begin(), inputs.end());
    check_descs(descs, {});
    const Descs inferred = infer(descs);
    outputs.resize(inferred.size());
    for (size_t i = 0; i < inferred.size(); ++i) outputs[i] = inferred[i];
  });
}

void AtbOperation::check_tensors(const Tensors& inputs, const Tensors& outputs) const {
  const Descs expected = infer(descs_of(inputs));
  for (size_t i = 0; i < expected.size(); ++i) {
    if (!same_desc(expected[i], outputs[i].desc)) {
      reject(::atb::ERROR_INVALID_TENSOR_DIM, "output %zu is %s, but it must be %s.", i,
             describe(outputs[i].desc).c_str(), describe(expected[i]).c_str());
    }
  }
}

Status AtbOperation::Setup(const ::atb::VariantPack& pack, uint64_t& workspace_size, ::atb::Context* context) {
  return atb_guarded(name_, [&] {
    workspace_size = 0;  // intermediate results live on the CPU's heap
    require(context != nullptr, ::atb::ERROR_INVALID_CONTEXT_ADDR, "the context is null.");
    if (pack.outTensors.size() != output_count()) {
      reject(::atb::ERROR_INVALID_IN_TENSOR_NUM, "%zu output tensors were given, but there are %zu.",
             pack.outTensors.size(), output_count());
    }
    check_descs(descs_of(pack.inTensors), descs_of(pack.outTensors));
    check_tensors(pack.inTensors, pack.outTensors);
    t_latest_setup = {serial_, context->GetExecuteStream()};
    latest_stream_ = t_latest_setup.stream;
  });
}

namespace {

// What a kernel may touch is device memory, as for aclnn's operators (aclnn/validate.cpp).
void check_memory(const ::atb::Tensor& tensor, const char* what, size_t index) {
  if (tensor.deviceData == nullptr || is_empty(tensor.desc)) return;
  const int64_t count = element_count(tensor.desc);
  if (count < 0) reject(::atb::ERROR_INVALID_TENSOR_SIZE, "%s %zu has no size that can be.", what, index);
  const uint64_t bytes = (static_cast<uint64_t>(count) * element_bits(tensor.desc.dtype) + 7) / 8;
  if (bytes > tensor.dataSize) {
    reject(::atb::ERROR_INVALID_TENSOR_SIZE, "%s %zu (%s) takes %llu bytes, but has %llu.", what, index,
           describe(tensor.desc).c_str(), static_cast<unsigned long long>(bytes),
           static_cast<unsigned long long>(tensor.dataSize));
  }
  try {
    check_device_range(tensor.deviceData, bytes, what);
  } catch (const Failure& failure) {
    reject(::atb::ERROR_INVALID_TENSOR_ADDR, "%s %zu: %s", what, index, failure.what());
  }
}

// As core/forms.h writes them; ATB's tensors have positions, not names.
std::string form_of_launch(const char* name, const ::atb::VariantPack& pack) {
  std::string text = name;
  const auto add = [&text](const char* what, const auto& tensors) {
    for (size_t i = 0; i < tensors.size(); ++i) {
      const TensorDesc& desc = tensors[i].desc;
      if (is_empty(desc)) continue;
      text += std::string(" ") + what + std::to_string(i) + "=" +
              form_of(desc.dtype, desc.format, static_cast<int>(desc.shape.dimNum), false);
    }
  };
  add("in", pack.inTensors);
  add("out", pack.outTensors);
  return text;
}

}  // namespace

Status AtbOperation::Execute(const ::atb::VariantPack& pack, uint8_t*, uint64_t, ::atb::Context* context) {
  return atb_guarded(name_, [&] {
    require(context != nullptr, ::atb::ERROR_INVALID_CONTEXT_ADDR, "the context is null.");
    for (size_t i = 0; i < pack.inTensors.size(); ++i) {
      const auto& tensor = pack.inTensors[i];
      if (tensor.deviceData == nullptr && tensor.hostData == nullptr && !may_be_empty(i)) {
        reject(::atb::ERROR_INVALID_TENSOR_ADDR, "input %zu has no address.", i);
      }
    }
    for (const auto& tensor : pack.outTensors) {
      require(tensor.deviceData != nullptr, ::atb::ERROR_INVALID_TENSOR_ADDR, "an output has no device address.");
    }
    for (size_t i = 0; i < pack.inTensors.size(); ++i) check_memory(pack.inTensors[i], "input", i);
    for (size_t i = 0; i < pack.outTensors.size(); ++i) check_memory(pack.outTensors[i], "output", i);
    if (records_forms()) record_form(form_of_launch(name_, pack));
    submit(stream_of_setup(), launch(pack.inTensors, pack.outTensors));
  });
}

}  // namespace emulator
