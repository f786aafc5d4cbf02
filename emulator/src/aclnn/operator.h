// What makes up an operator: facts from signatures.txt, a check (phase 1), a kernel (phase 2) and a cost.
//
//   ACLNN_CHECK(Cumsum) { require_dim(a.dim, a.self, "dim"); }        // optional; throws Failure
//   ACLNN_KERNEL(Cumsum) { at::cumsum_out(out(a.out), in(a.self), a.dim); }
//   ACLNN_WORK(Matmul) { return {.cube_flops = ...}; }                // optional; default: one vector pass
//   ACLNN_WORKSPACE(Attention) { return {.bytes = ...}; }             // optional; default: none
//
// `a` is the struct that generate.py derives from the operator's line in signatures.txt (CumsumArgs here).
#pragma once

#include <cstdarg>
#include <cstdint>
#include <string>

#include "aclnn/arguments.h"
#include "core/chips.h"
#include "core/errors.h"
#include "core/task.h"

namespace emulator::aclnn {

enum class ParameterKind : uint8_t {
  kTensor, kDynamicTensor, kTensorList, kScalar, kScalarList, kIntArray, kFloatArray, kBoolArray, kString, kValue
};

// One argument of an operator: where it lies in the argument struct, so that generic checks need no code per operator.
struct Parameter {
  const char* name;
  ParameterKind kind;
  bool optional;
  bool output;
  uint32_t offset;
};

// A phase-1 check that the operator's line in signatures.txt declares: `subject` and `others` are positions of parameters.
struct Demand {
  enum Kind : uint8_t {
    kSizes,     // OUT=A+B: the subject has the sizes to which the others broadcast
    kOne,       // OUT=1: the subject has one element
    kFloating,  // X:float: a floating or complex type
    kReal,      // X:real: no complex type
    kNumber,    // X:number: floating, complex, int8 to int64 or uint8
    kAten,      // X:aten: a type that PyTorch has
    kIndex,     // X:index: int32 or int64
    kBoolean,   // X:bool
  };
  Kind kind;
  uint8_t subject;
  uint8_t other_count = 0;
  uint8_t others[3] = {};
};

// Bytes of device memory that an operator asks for beside its tensors: of this launch, and of the largest that a captured
// graph may be updated to (GetMaxWorkspaceSize).
struct Workspace {
  uint64_t bytes = 0;
  uint64_t most_bytes = 0;
};

// An operator: the first members are constants from signatures.txt, the rest is filled by the kernel files'
// static initializers. `args` is always the operator's own argument struct.
struct Operator {
  const char* name;     // "aclnnAdd"
  uint32_t products;    // mask of emulator::Product
  bool accepts_nz;      // takes FRACTAL_NZ tensors; every other operator refuses them
  bool has_dynamic_output;
  bool moves;           // gives bits that it was given: no arithmetic that could saturate
  const Parameter* parameters;
  uint32_t parameter_count;
  const Demand* demands;  // what signatures.txt says of sizes and types; checked with every tensor of the call
  uint32_t demand_count;
  uint32_t args_size;
  void (*destroy)(void* args);
  void (*check)(const void* args) = nullptr;
  void (*kernel)(const void* args) = nullptr;
  Work (*work)(const void* args) = nullptr;
  Workspace (*workspace)(const void* args) = nullptr;
};

template <typename Function>
struct Registration {
  Registration(Function& slot, Function function) { slot = function; }
};

#define ACLNN_DEFINE_(op, member, result)                                                                   \
  static result op##_##member(const op##Args& a);                                                           \
  static const ::emulator::aclnn::Registration<result (*)(const void*)> op##_##member##_registered(         \
      op##Args::the_operator.member,                                                                        \
      [](const void* args) -> result { return op##_##member(*static_cast<const op##Args*>(args)); });       \
  static result op##_##member([[maybe_unused]] const op##Args& a)

#define ACLNN_CHECK(op) ACLNN_DEFINE_(op, check, void)
#define ACLNN_KERNEL(op) ACLNN_DEFINE_(op, kernel, void)
#define ACLNN_WORK(op) ACLNN_DEFINE_(op, work, ::emulator::Work)
#define ACLNN_WORKSPACE(op) ACLNN_DEFINE_(op, workspace, ::emulator::aclnn::Workspace)

// What the host of the chip takes to begin an operator that no core runs; assumed: an order of magnitude.
inline constexpr double kAiCpuLaunchNs = 100e3;

// Phase-1 refusals: throw Failure(161002) with a printf-style message unless the condition holds.
void require(bool condition, const char* format, ...) __attribute__((format(printf, 2, 3)));

// Refuses unless the tensor's type is in the list; the message has the list as CANN's has.
void require_dtype(const TensorView& tensor, const char* name, std::initializer_list<aclDataType> accepted);
void require_same_dtype(const TensorView& a, const char* name_a, const TensorView& b, const char* name_b);
void require_sizes(const TensorView& tensor, const char* name, const Dims& expected);
void require_rank(const TensorView& tensor, const char* name, int at_least, int at_most);
// dim must lie in [-rank, rank); a 0-d tensor counts as 1-d. Returns it counted from the front.
int64_t require_dim(int64_t dim, const TensorView& tensor, const char* name);

bool is_floating(aclDataType dtype);  // fp16, bf16, fp32, double
bool is_complex(aclDataType dtype);
bool is_integral(aclDataType dtype);  // bool not included

std::string to_string(const Dims& sizes);  // "[2, 3]"
Dims broadcast_sizes(const Dims& a, const char* name_a, const Dims& b, const char* name_b);
inline Dims broadcast_sizes(const TensorView& a, const char* name_a, const TensorView& b, const char* name_b) {
  return broadcast_sizes(a.sizes, name_a, b.sizes, name_b);
}

}  // namespace emulator::aclnn
