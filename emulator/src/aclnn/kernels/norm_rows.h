// What the RMSNorm family shares: how gamma's shape splits x into rows, and the checks that follow from it.
#pragma once

#include "aclnn/operator.h"
#include "math/norm.h"

namespace emulator::aclnn {

struct NormRows {
  int64_t rows;
  int64_t cols;
};

// gamma spans the last dimensions of x (leading ones of size 1 aside); the others count rows.
NormRows norm_rows(const TensorView& x, const TensorView& gamma);

// gamma must match the last dimensions of x; on Ascend 310P a row must fill 32 bytes.
void check_norm_rows(const TensorView& x, const TensorView& gamma);

// x1 and x2 of the same type and size, and the outputs that are there like x1.
void check_added(const TensorView& x1, const TensorView& x2, const TensorView& gamma);
void check_like(const TensorView& tensor, const char* name, const TensorView& like, const char* like_name);

// The fused addition as the chips do it: float16 adds and normalizes the rounded sum, bfloat16 normalizes the exact one,
// and both round once more before gamma (hicann/ops-nn, norm/add_rms_norm/op_kernel).
RmsNorm added_norm(const TensorView& x1, const TensorView& gamma, double epsilon);

}  // namespace emulator::aclnn
