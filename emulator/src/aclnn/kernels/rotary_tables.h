// Rotation of tensors of up to four dimensions by broadcast cosine and sine tables.
#pragma once

#include "aclnn/operator.h"
#include "math/rope.h"

namespace emulator::aclnn {

// x, y [.., .., .., dim]; cos and sin have x's rank, each dimension but the last equal to x's or 1. Dims of x beyond the width
// of the tables are copied. x and y may be the same memory.
void rotate_broadcast(const TensorView& x, const TensorView& cos, const TensorView& sin, RopeStyle style, const TensorView& y);

// Refuses tables that do not broadcast to x.
void check_tables(const TensorView& x, const char* name, const TensorView& cos, const TensorView& sin);

Work rotary_work(const TensorView& x);

}  // namespace emulator::aclnn
