// aclopCompileAndExecute: torch_npu's older way to launch an operator. With jit_compile off it remains for casts of
// formats, for copies between chips, and for tensors in FRACTAL_NZ; what is not emulated is refused by name.
#include <acl/acl_op_compiler.h>

#include <memory>
#include <string>

#include "aclop/operators.h"
#include "core/errors.h"
#include "core/forms.h"

namespace emulator::aclop {
namespace {

// What is given at position `index` of an array of handles.
template <typename Type>
const Type& given(const Type* const array[], int index, const char* name) {
  if (array == nullptr || !is_live(array[index])) {
    fail(ACL_ERROR_INVALID_PARAM, "%s[%d] is null, was destroyed or never created.", name, index);
  }
  return *array[index];
}

Operand operand(const aclTensorDesc& desc, const aclDataBuffer& buffer) {
  Operand made{desc, buffer, {}};
  if (!made.on_host()) return made;
  if (buffer.data == nullptr && buffer.size_bytes > 0) fail(ACL_ERROR_INVALID_PARAM, "an input in host memory is null.");
  const auto* bytes = static_cast<const char*>(buffer.data);
  made.host.assign(bytes, bytes + buffer.size_bytes);
  return made;
}

void record_form(const std::string& name, const Call& call) {
  std::string form = name;
  const auto add = [&](const char* argument, const Operand& operand) {
    const aclTensorDesc& desc = operand.desc;
    form += std::string(" ") + argument + "=" + form_of(desc.dtype, storage_format(desc), desc.sizes.rank(), false);
  };
  for (const Operand& input : call.inputs) add("in", input);
  for (const Operand& output : call.outputs) add("out", output);
  emulator::record_form(form);
}

void execute(const char* type, int input_count, const aclTensorDesc* const inputs[],
             const aclDataBuffer* const sources[], int output_count, const aclTensorDesc* const outputs[],
             aclDataBuffer* const targets[], const aclopAttr* attributes, aclrtStream stream) {
  if (type == nullptr) fail(ACL_ERROR_INVALID_PARAM, "opType is null.");
  if (attributes != nullptr && !is_live(attributes)) fail(ACL_ERROR_INVALID_PARAM, "attr does not exist.");
  const Make make = find_operator(type);
  if (make == nullptr) {
    std::string names;
    if (attributes != nullptr) {
      for (const auto& name : attributes->names) names += (names.empty() ? " (attributes " : ", ") + name;
    }
    fail(ACL_ERROR_OP_NOT_FOUND,
         "operator %s%s is not emulated through aclop; call torch.npu.set_compile_mode(jit_compile=False) and keep its "
         "tensors in ND format, so that torch_npu calls aclnn instead.",
         type, names.empty() ? "" : (names + ")").c_str());
  }
  Call call;
  if (attributes != nullptr) call.attributes = *attributes;
  for (int i = 0; i < input_count; ++i)
    call.inputs.push_back(operand(given(inputs, i, "inputDesc"), given(sources, i, "inputs")));
  for (int i = 0; i < output_count; ++i)
    call.outputs.push_back(operand(given(outputs, i, "outputDesc"), given(targets, i, "outputs")));
  TaskPtr task = make(call);
  if (records_forms()) record_form(task->name(), call);
  submit(stream, std::move(task));
}

}  // namespace
}  // namespace emulator::aclop

extern "C" {

aclError aclopCompileAndExecute(const char* type, int input_count, const aclTensorDesc* const input_descs[],
                                const aclDataBuffer* const inputs[], int output_count,
                                const aclTensorDesc* const output_descs[], aclDataBuffer* const outputs[],
                                const aclopAttr* attributes, aclopEngineType, aclopCompileType, const char*,
                                aclrtStream stream) {
  return emulator::guarded("aclopCompileAndExecute", [&] {
    emulator::aclop::execute(type, input_count, input_descs, inputs, output_count, output_descs, outputs, attributes, stream);
  });
}

// V2 differs for operators whose output shape is known only after they ran; there is none among those emulated.
aclError aclopCompileAndExecuteV2(const char* type, int input_count, aclTensorDesc* input_descs[],
                                  aclDataBuffer* inputs[], int output_count, aclTensorDesc* output_descs[],
                                  aclDataBuffer* outputs[], aclopAttr* attributes, aclopEngineType, aclopCompileType,
                                  const char*, aclrtStream stream) {
  return emulator::guarded("aclopCompileAndExecuteV2", [&] {
    emulator::aclop::execute(type, input_count, input_descs, inputs, output_count, output_descs, outputs, attributes, stream);
  });
}

}  // extern "C"
