// aclopCompileAndExecute: torch_npu's older way to launch an operator. With jit_compile off it remains for Identity,
// which copies a tensor into another storage format (FRACTAL_NZ weights and caches); anything else is refused by name.
#include <acl/acl_op_compiler.h>

#include <cstring>
#include <memory>
#include <string>

#include "aclop/attributes.h"
#include "core/clock.h"
#include "core/cost.h"
#include "core/descriptors.h"
#include "core/errors.h"
#include "core/forms.h"
#include "core/memory.h"
#include "core/task.h"
#include "math/nz.h"

namespace emulator {
namespace {

aclFormat storage_format(const aclTensorDesc& desc) {
  return desc.storage_format == ACL_FORMAT_UNDEFINED ? desc.format : desc.storage_format;
}

// Formats that name the axes but leave a contiguous tensor where it is.
bool is_row_major(aclFormat format) {
  return format == ACL_FORMAT_ND || format == ACL_FORMAT_NCHW || format == ACL_FORMAT_NCDHW ||
         format == ACL_FORMAT_NCL || format == ACL_FORMAT_NC;
}

// The matrices of a tensor stored in FRACTAL_NZ, whose sizes are those of the row-major side of the cast.
FractalMatrix fractal_storage(void* data, const aclTensorDesc& desc, const Dims& sizes) {
  if (sizes.rank() < 2 || !(desc.storage_sizes == fractal_storage_sizes(sizes, desc.dtype))) {
    fail(ACL_ERROR_INVALID_PARAM,
         "Identity: the storage shape of the FRACTAL_NZ tensor does not fit its %d-dimensional shape.", sizes.rank());
  }
  FractalMatrix matrix;
  matrix.data = data;
  matrix.element_bytes = element_bits(desc.dtype) / 8;
  matrix.rows = sizes.back(1);
  matrix.cols = sizes.back(0);
  matrix.padded_rows = round_up(matrix.rows, kFractalRows);
  matrix.c0 = fractal_c0(desc.dtype);
  matrix.batch = matrix.rows * matrix.cols == 0 ? 0 : sizes.product() / (matrix.rows * matrix.cols);
  return matrix;
}

class IdentityTask final : public Task {
 public:
  IdentityTask(const aclTensorDesc& from, const aclDataBuffer& source, const aclTensorDesc& to,
               const aclDataBuffer& target)
      : from_(from), to_(to), source_(source), target_(target), sizes_(from.sizes) {
    const aclFormat from_format = storage_format(from), to_format = storage_format(to);
    if (from.dtype != to.dtype) {
      fail(ACL_ERROR_INVALID_PARAM, "Identity: the input is %s and the output %s; it does not convert.",
           dtype_name(from.dtype), dtype_name(to.dtype));
    }
    if (from.sizes.product() != to.sizes.product()) {
      fail(ACL_ERROR_INVALID_PARAM, "Identity: the input has %lld elements and the output %lld.",
           (long long)from.sizes.product(), (long long)to.sizes.product());
    }
    casts_ = from_format != to_format && !(is_row_major(from_format) && is_row_major(to_format));
    if (casts_) check_cast(from_format, to_format);
    check_memory();
  }

  // A cast is TransData on the device, whatever inserted it.
  const char* name() const override { return casts_ ? "TransData" : "Identity"; }
  TaskKind kind() const override { return casts_ ? TaskKind::kKernel : TaskKind::kCopy; }

  void run() override {
    convert();
    charge_copy();
  }
  void run_without_compute() override {
    if (!casts_ && static_cast<size_t>(storage_bytes(from_)) <= kHostVisibleBytes) convert();
    charge_copy();
  }

  Work work() const override {
    Work work;
    work.read_bytes = storage_bytes(from_);
    work.written_bytes = storage_bytes(to_);
    return work;
  }

 private:
  // A kernel is charged by the clock, a copy by itself.
  void charge_copy() const {
    if (casts_ || !Clock::models_time()) return;
    Clock::timeline().advance(device_copy_cost_ns(storage_bytes(from_), storage_bytes(to_)));
  }

  // As aclnn's operators ask (aclnn/validate.cpp): what is read and written is the buffer's, and device memory. A copy
  // writes as much as it reads.
  void check_memory() const {
    const auto written = static_cast<size_t>(casts_ ? storage_bytes(to_) : storage_bytes(from_));
    check_buffer(source_, static_cast<size_t>(storage_bytes(from_)), "the input");
    check_buffer(target_, written, "the output");
  }

  static void check_buffer(const aclDataBuffer& buffer, size_t size_bytes, const char* what) {
    if (size_bytes == 0) return;
    if (size_bytes > buffer.size_bytes) {
      fail(ACL_ERROR_INVALID_PARAM, "Identity: %s takes %zu bytes, but its buffer has %zu.", what, size_bytes,
           buffer.size_bytes);
    }
    check_device_range(buffer.data, size_bytes, what);
  }

  void convert() {
    check_memory();  // of a captured cast: what was there may have been given back
    void* source = host_address(source_.data);
    void* target = host_address(target_.data);
    if (!casts_) {
      std::memmove(target, source, storage_bytes(from_));
    } else if (storage_format(to_) == ACL_FORMAT_FRACTAL_NZ) {
      nd_to_nz(source, fractal_storage(target, to_, sizes_));
    } else {
      nz_to_nd(fractal_storage(source, from_, sizes_), target);
    }
  }

  static int64_t storage_bytes(const aclTensorDesc& desc) {
    return size_in_bytes(desc.storage_sizes.empty() ? desc.sizes : desc.storage_sizes, desc.dtype);
  }

  void check_cast(aclFormat from_format, aclFormat to_format) {
    const bool to_nz = is_row_major(from_format) && to_format == ACL_FORMAT_FRACTAL_NZ;
    const bool from_nz = from_format == ACL_FORMAT_FRACTAL_NZ && is_row_major(to_format);
    if (!to_nz && !from_nz) {
      fail(ACL_ERROR_FORMAT_NOT_MATCH,
           "Identity: the emulator does not cast %s to %s; it casts between row-major formats and FRACTAL_NZ.",
           format_name(from_format), format_name(to_format));
    }
    fractal_storage(nullptr, to_nz ? to_ : from_, sizes_);
  }

  aclTensorDesc from_, to_;
  aclDataBuffer source_, target_;
  Dims sizes_;
  bool casts_ = false;
};

// What is given at position `index` of an array of handles.
template <typename Type>
const Type& given(const Type* const array[], int index, const char* name) {
  if (array == nullptr || !is_live(array[index])) {
    fail(ACL_ERROR_INVALID_PARAM, "%s[%d] is null, was destroyed or never created.", name, index);
  }
  return *array[index];
}

void execute(const char* type, int input_count, const aclTensorDesc* const inputs[],
             const aclDataBuffer* const sources[], int output_count, const aclTensorDesc* const outputs[],
             aclDataBuffer* const targets[], const aclopAttr* attributes, aclrtStream stream) {
  if (type == nullptr) fail(ACL_ERROR_INVALID_PARAM, "opType is null.");
  if (attributes != nullptr && !is_live(attributes)) fail(ACL_ERROR_INVALID_PARAM, "attr does not exist.");
  if (strcmp(type, "Identity") != 0) {
    std::string names;
    if (attributes != nullptr) {
      for (const auto& name : attributes->names) names += (names.empty() ? " (attributes " : ", ") + name;
    }
    fail(ACL_ERROR_OP_NOT_FOUND,
         "operator %s%s is not emulated through aclop; call torch.npu.set_compile_mode(jit_compile=False) and keep its "
         "tensors in ND format, so that torch_npu calls aclnn instead.",
         type, names.empty() ? "" : (names + ")").c_str());
  }
  if (input_count != 1 || output_count != 1) fail(ACL_ERROR_INVALID_PARAM, "Identity has one input and one output.");
  const auto &from = given(inputs, 0, "inputDesc"), &to = given(outputs, 0, "outputDesc");
  auto task = std::make_shared<IdentityTask>(from, given(sources, 0, "inputs"), to, given(targets, 0, "outputs"));
  if (records_forms()) {
    const auto form = [](const aclTensorDesc& desc) {
      return form_of(desc.dtype, storage_format(desc), desc.sizes.rank(), false);
    };
    record_form(std::string(task->name()) + " in=" + form(from) + " out=" + form(to));
  }
  submit(stream, std::move(task));
}

}  // namespace
}  // namespace emulator

extern "C" {

aclError aclopCompileAndExecute(const char* type, int input_count, const aclTensorDesc* const input_descs[],
                                const aclDataBuffer* const inputs[], int output_count,
                                const aclTensorDesc* const output_descs[], aclDataBuffer* const outputs[],
                                const aclopAttr* attributes, aclopEngineType, aclopCompileType, const char*,
                                aclrtStream stream) {
  return emulator::guarded("aclopCompileAndExecute", [&] {
    emulator::execute(type, input_count, input_descs, inputs, output_count, output_descs, outputs, attributes, stream);
  });
}

// V2 differs for operators whose output shape is known only after they ran; there is none among those emulated.
aclError aclopCompileAndExecuteV2(const char* type, int input_count, aclTensorDesc* input_descs[],
                                  aclDataBuffer* inputs[], int output_count, aclTensorDesc* output_descs[],
                                  aclDataBuffer* outputs[], aclopAttr* attributes, aclopEngineType, aclopCompileType,
                                  const char*, aclrtStream stream) {
  return emulator::guarded("aclopCompileAndExecuteV2", [&] {
    emulator::execute(type, input_count, input_descs, inputs, output_count, output_descs, outputs, attributes, stream);
  });
}

}  // extern "C"
