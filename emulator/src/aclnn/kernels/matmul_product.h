// Products of TensorViews: ranks, broadcasting, FRACTAL_NZ weights and the cube unit's precision modes.
#pragma once

#include "aclnn/operator.h"

namespace emulator::aclnn {

// cubeMathType of every matrix product (documents of aclnnMatmul, aclnnMm and others).
enum CubeMath : int8_t { kKeepDtype = 0, kAllowDownPrecision = 1, kUseFp16 = 2, kUseHf32 = 3, kUseFp32Add = 4 };

// out = alpha * left @ right + beta * addend. left [.., M, K], right [.., K, N], out [.., M, N]; batch dimensions and the
// addend broadcast. alpha applies to the fp32 sum.
struct MatrixProduct {
  const TensorView& left;
  const TensorView& right;
  const TensorView& out;
  int8_t cube_math = kKeepDtype;
  double alpha = 1.0;
  double beta = 0.0;
  const TensorView* addend = nullptr;
};

void run(const MatrixProduct& product);

// The same of two dimensions, every second row summed from the middle of K: equal rows then round differently.
void run_in_row_order(const MatrixProduct& product);

// Of an operand as it lies in memory: FRACTAL_NZ is padded to whole blocks.
double stored_bytes(const TensorView& operand);

Work work_of(const MatrixProduct& product);

// Phase-1 rules common to all of them: types, their mixing, cubeMathType on this chip, inner sizes, the size of out.
void check_product(const MatrixProduct& product);

// Ranks 1 to 6 as torch.matmul has them: a vector on either side counts as a matrix of one row or column.
TensorView as_left_matrix(const TensorView& view);
TensorView as_right_matrix(const TensorView& view);
TensorView as_product(const TensorView& out, bool left_is_vector, bool right_is_vector);

}  // namespace emulator::aclnn
