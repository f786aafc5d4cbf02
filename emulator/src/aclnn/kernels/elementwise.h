// One line per elementwise operator: its phase-1 check and its ATen function.
//
// UNARY(Exp, exp, self)           out = exp(self)              an operator with arguments (self, out)
// UNARY_IN_PLACE(InplaceExp, ...) self = exp(self)
// BINARY(Mul, mul, self, other)   out = mul(self, other)       the second operand a tensor
// BINARY_SCALAR(Muls, ...)        out = mul(self, other)       the second operand a host scalar
// COMPARISON, SCALAR_COMPARISON   out = eq(self, other)        any type of out can hold a boolean
// ..._IN_PLACE                    the first operand is also the result
#pragma once

#include "aclnn/kernels/aten_arguments.h"

namespace emulator::aclnn {

// A host scalar as an operand that takes part in type promotion like a Python number.
at::Tensor number(const Scalar& value);

// `out` has the sizes of `self`, and the result type of an operation on it can be stored in `out`.
void check_unary(const TensorView& self, const TensorView& out);
// `out` has the broadcast sizes of both; as in PyTorch, a floating result cannot be stored in an integral `out`.
void check_binary(const TensorView& self, const TensorView& other, const TensorView& out);
void check_binary(const TensorView& self, const Scalar& other, const TensorView& out);
// As above, for results that are booleans, which any type can store.
void check_comparison(const TensorView& self, const TensorView& other, const TensorView& out);

}  // namespace emulator::aclnn

#define ACLNN_UNARY(op, function, self)        \
  ACLNN_CHECK(op) { check_unary(a.self, a.out); } \
  ACLNN_KERNEL(op) { at::function##_out(out(a.out), in(a.self)); }

#define ACLNN_UNARY_IN_PLACE(op, function, self) \
  ACLNN_KERNEL(op) {                             \
    at::Tensor self = in(a.self);                \
    at::function##_out(self, self);              \
  }

#define ACLNN_BINARY(op, function, self, other)               \
  ACLNN_CHECK(op) { check_binary(a.self, a.other, a.out); } \
  ACLNN_KERNEL(op) { at::function##_out(out(a.out), in(a.self), in(a.other)); }

#define ACLNN_BINARY_SCALAR(op, function, self, other)        \
  ACLNN_CHECK(op) { check_binary(a.self, a.other, a.out); } \
  ACLNN_KERNEL(op) { at::function##_out(out(a.out), in(a.self), number(a.other)); }

#define ACLNN_BINARY_IN_PLACE(op, function, self, other)       \
  ACLNN_CHECK(op) { check_binary(a.self, a.other, a.self); } \
  ACLNN_KERNEL(op) {                                           \
    at::Tensor self = in(a.self);                              \
    at::function##_out(self, self, in(a.other));               \
  }

#define ACLNN_BINARY_SCALAR_IN_PLACE(op, function, self, other) \
  ACLNN_CHECK(op) { check_binary(a.self, a.other, a.self); }  \
  ACLNN_KERNEL(op) {                                            \
    at::Tensor self = in(a.self);                               \
    at::function##_out(self, self, number(a.other));            \
  }

#define ACLNN_COMPARISON(op, function, self, other)               \
  ACLNN_CHECK(op) { check_comparison(a.self, a.other, a.out); } \
  ACLNN_KERNEL(op) { at::function##_out(out(a.out), in(a.self), in(a.other)); }

#define ACLNN_COMPARISON_IN_PLACE(op, function, self, other)       \
  ACLNN_CHECK(op) { check_comparison(a.self, a.other, a.self); } \
  ACLNN_KERNEL(op) {                                               \
    at::Tensor self = in(a.self);                                  \
    at::function##_out(self, self, in(a.other));                   \
  }

#define ACLNN_SCALAR_COMPARISON(op, function, self, other)        \
  ACLNN_CHECK(op) { require_sizes(a.out, "out", a.self.sizes); } \
  ACLNN_KERNEL(op) { at::function##_out(out(a.out), in(a.self), scalar(a.other)); }

#define ACLNN_SCALAR_COMPARISON_IN_PLACE(op, function, self, other) \
  ACLNN_KERNEL(op) {                                                \
    at::Tensor self = in(a.self);                                   \
    at::function##_out(self, self, scalar(a.other));                \
  }
