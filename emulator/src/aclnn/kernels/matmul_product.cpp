#include "aclnn/kernels/matmul_product.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "core/cost.h"
#include "math/convert.h"
#include "math/gemm.h"
#include "math/parallel.h"

namespace emulator::aclnn {

namespace {

constexpr int64_t kParallelElements = 16384;  // converted in about the time of waking a thread

// What the cube unit makes of its float32 operands before multiplying.
enum class Precision { kExact, kHf32, kFp16 };

Precision precision_of(const MatrixProduct& p) {
  if (p.left.dtype != ACL_FLOAT && p.right.dtype != ACL_FLOAT) return Precision::kExact;
  switch (p.cube_math) {
    case kAllowDownPrecision: return chip().product == kAtlasInference ? Precision::kFp16 : Precision::kHf32;
    case kUseFp16: return Precision::kFp16;
    case kUseHf32: return Precision::kHf32;
    default: return Precision::kExact;
  }
}

// HFLOAT32 keeps float32's exponent and 11 bits of mantissa, rounded to nearest.
float to_hf32(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits = (bits + 0x800) & ~0xfffu;
  std::memcpy(&value, &bits, sizeof bits);
  return value;
}

// A matrix of a batch: address of element (0, 0) and strides. `copy` holds it where it had to be rearranged.
struct Matrix {
  const char* data;
  aclDataType dtype;
  int64_t row_stride;
  int64_t col_stride;
  std::unique_ptr<char[]> copy;
};

Matrix transposed(Matrix matrix) {
  std::swap(matrix.row_stride, matrix.col_stride);
  return matrix;
}

// The matrix row after row, in what the cube unit makes of its elements.
Matrix dense_copy(const Matrix& from, int64_t rows, int64_t cols, Precision precision) {
  const aclDataType dtype = precision == Precision::kFp16 ? ACL_FLOAT16 : ACL_FLOAT;
  const int64_t row_bytes = cols * element_bits(dtype) / 8;
  Matrix to{nullptr, dtype, cols, 1, std::unique_ptr<char[]>(new char[rows * row_bytes])};
  to.data = to.copy.get();
  parallel_for(0, rows, kParallelElements / (cols + 1) + 1, [&](int64_t begin, int64_t end) {
    std::vector<float> values(cols);
    for (int64_t r = begin; r < end; ++r) {
      const char* row = from.data + r * from.row_stride * element_bits(from.dtype) / 8;
      if (from.col_stride == 1) {
        to_float(row, from.dtype, values.data(), cols);
      } else {
        for (int64_t c = 0; c < cols; ++c) values[c] = load_float(row, from.dtype, c * from.col_stride);
      }
      if (precision == Precision::kHf32) std::transform(values.begin(), values.end(), values.begin(), to_hf32);
      from_float(values.data(), to.copy.get() + r * row_bytes, dtype, cols);
    }
  });
  return to;
}

// Element offset of batch `index` of the product within an operand that may broadcast.
int64_t batch_offset(const TensorView& operand, const TensorView& out, int64_t index) {
  int64_t offset = 0;
  for (int i = 2; i < out.rank(); ++i) {
    const int64_t at = index % out.sizes.back(i);
    index /= out.sizes.back(i);
    if (i < operand.rank() && operand.sizes.back(i) != 1) offset += at * operand.strides.back(i);
  }
  return offset;
}

int64_t batch_count(const TensorView& out) {
  int64_t count = 1;
  for (int i = 2; i < out.rank(); ++i) count *= out.sizes.back(i);
  return count;
}

Matrix matrix_of(const TensorView& view, const TensorView& out, int64_t batch) {
  const int64_t offset = batch_offset(view, out, batch) * element_bits(view.dtype) / 8;
  return {static_cast<const char*>(view.data()) + offset, view.dtype, view.strides.back(1), view.strides.back(0), {}};
}

GemmOperand right_operand(const MatrixProduct& p, int64_t batch, Precision precision, Matrix& keep) {
  const int64_t k = p.right.sizes.back(1), n = p.right.sizes.back(0);
  if (p.right.is_fractal_nz()) {
    bool transposed = false;
    const FractalMatrix matrix = fractal_matrix(p.right, &transposed);
    return fractal(matrix, p.right.dtype, transposed, matrix.batch == 1 ? 0 : batch);
  }
  keep = matrix_of(p.right, p.out, batch);
  const bool rows_dense = keep.col_stride == 1 || n == 1, columns_dense = keep.row_stride == 1 || k == 1;
  if ((!rows_dense && !columns_dense) || precision != Precision::kExact) {
    // A transposed weight stays transposed: its copy follows its storage.
    keep = rows_dense ? dense_copy(keep, k, n, precision) : transposed(dense_copy(transposed(std::move(keep)), n, k, precision));
  }
  if (keep.row_stride == 1 && keep.col_stride != 1) {
    return row_major_transposed(keep.data, keep.dtype, keep.col_stride);
  }
  if (k == 1 && keep.col_stride != 1) return row_major_transposed(keep.data, keep.dtype, keep.col_stride);
  return row_major(keep.data, keep.dtype, keep.row_stride);
}

void add_addend(const MatrixProduct& p, int64_t batch, Gemm& g) {
  if (p.addend == nullptr || p.beta == 0.0) return;
  const TensorView& d = *p.addend;
  g.beta = static_cast<float>(p.beta);
  g.d = static_cast<const char*>(d.data()) + batch_offset(d, p.out, batch) * element_bits(d.dtype) / 8;
  g.d_dtype = d.dtype;
  g.d_col_stride = d.rank() < 1 || d.sizes.back(0) == 1 ? 0 : d.strides.back(0);
  g.d_row_stride = d.rank() < 2 || d.sizes.back(1) == 1 ? 0 : d.strides.back(1);
}

void check_cube_math(const MatrixProduct& p) {
  require(p.cube_math >= kKeepDtype && p.cube_math <= kUseFp32Add, "cubeMathType is %d, but must be 0 to 4.", p.cube_math);
  const bool has_float = p.left.dtype == ACL_FLOAT || p.right.dtype == ACL_FLOAT;
  if (chip().product == kAtlasInference) {
    require(!has_float || p.cube_math != kKeepDtype,
            "the cube unit of %s has no float32: give float16 tensors, or cubeMathType 1 to compute in float16.",
            chip().soc_version);
    require(p.cube_math != kUseHf32, "cubeMathType 3 (HFLOAT32) does not exist on %s.", chip().soc_version);
    return;
  }
  require(p.cube_math != kUseFp16 || (p.left.dtype != ACL_BF16 && p.right.dtype != ACL_BF16),
          "cubeMathType 2 (float16) does not take bfloat16 tensors.");
}

}  // namespace

void check_product(const MatrixProduct& p) {
  require_dtype(p.left, "the left matrix", {ACL_FLOAT16, ACL_BF16, ACL_FLOAT});
  require_dtype(p.right, "the right matrix", {ACL_FLOAT16, ACL_BF16, ACL_FLOAT});
  require_dtype(p.out, "out", {ACL_FLOAT16, ACL_BF16, ACL_FLOAT});
  require(p.left.dtype == p.right.dtype || (p.left.dtype != ACL_BF16 && p.right.dtype != ACL_BF16),
          "the matrices are %s and %s, which have no common data type.", dtype_name(p.left.dtype), dtype_name(p.right.dtype));
  require(!p.left.is_fractal_nz() && !p.out.is_fractal_nz(), "only the right matrix may have format FRACTAL_NZ.");
  check_cube_math(p);
  require(p.left.sizes.back(0) == p.right.sizes.back(1),
          "the left matrix %s has %lld columns and the right matrix %s has %lld rows, but they must be equal.",
          to_string(p.left.sizes).c_str(), static_cast<long long>(p.left.sizes.back(0)), to_string(p.right.sizes).c_str(),
          static_cast<long long>(p.right.sizes.back(1)));
  if (p.right.is_fractal_nz()) {
    bool transposed = false;
    fractal_matrix(p.right, &transposed);
  }
  TensorView left = p.left, right = p.right;
  left.sizes[left.rank() - 1] = 1;    // so that only M, N and the batch take part
  right.sizes[right.rank() - 2] = 1;
  require_sizes(p.out, "out", broadcast_sizes(left, "the left matrix", right, "the right matrix"));
}

void run(const MatrixProduct& p) {
  Gemm g;
  g.m = p.out.sizes.back(1);
  g.n = p.out.sizes.back(0);
  g.k = p.left.sizes.back(0);
  g.c_dtype = p.out.dtype;
  g.c_row_stride = p.out.strides.back(1);
  g.c_col_stride = p.out.strides.back(0);
  g.alpha = static_cast<float>(p.alpha);
  if (p.out.numel() == 0) return;
  const Precision precision = precision_of(p);
  for (int64_t batch = 0; batch < batch_count(p.out); ++batch) {
    Matrix left{}, right{};
    if (g.k > 0) {
      left = matrix_of(p.left, p.out, batch);
      if (precision != Precision::kExact) left = dense_copy(left, g.m, g.k, precision);
      g.b = right_operand(p, batch, precision, right);
    }
    g.a = left.data;
    g.a_dtype = left.dtype;
    g.a_row_stride = left.row_stride;
    g.a_col_stride = g.k == 1 ? 1 : left.col_stride;
    g.c = static_cast<char*>(p.out.data()) + batch_offset(p.out, p.out, batch) * element_bits(p.out.dtype) / 8;
    add_addend(p, batch, g);
    gemm(g);
  }
}

namespace {

// Rows k and on of an operand; k is a multiple of 16.
GemmOperand from_row(GemmOperand operand, int64_t k) {
  const int64_t elements = operand.along_k ? k / 16 * operand.chunk_stride : k * operand.line_stride;
  operand.data = static_cast<const char*>(operand.data) + elements * element_bits(operand.dtype) / 8;
  return operand;
}

}  // namespace

void run_in_row_order(const MatrixProduct& p) {
  run(p);
  const int64_t k = p.left.sizes[1], n = p.out.sizes[1], middle = k / 32 * 16, rows = p.out.sizes[0] / 2;
  if (rows == 0 || n == 0 || middle == 0 || precision_of(p) != Precision::kExact) return;
  const int64_t a_bytes = element_bits(p.left.dtype) / 8;
  std::vector<float> sums(rows * n);
  Matrix keep{};
  const GemmOperand right = right_operand(p, 0, Precision::kExact, keep);
  Gemm g;
  g.m = rows;  // 1, 3, 5, ...
  g.n = n;
  g.k = k - middle;
  g.a = p.left.data_as<char>() + (p.left.strides[0] + middle * p.left.strides[1]) * a_bytes;
  g.a_dtype = p.left.dtype;
  g.a_row_stride = 2 * p.left.strides[0];
  g.a_col_stride = p.left.strides[1];
  g.b = from_row(right, middle);
  g.c = sums.data();
  g.c_dtype = ACL_FLOAT;
  g.c_row_stride = n;
  gemm(g);
  g.k = middle;
  g.a = p.left.data_as<char>() + p.left.strides[0] * a_bytes;
  g.b = right;
  g.d = sums.data();
  g.d_dtype = ACL_FLOAT;
  g.d_row_stride = n;
  g.beta = 1.0f;
  g.c = p.out.data_as<char>() + p.out.strides[0] * element_bits(p.out.dtype) / 8;
  g.c_dtype = p.out.dtype;
  g.c_row_stride = 2 * p.out.strides[0];
  g.c_col_stride = p.out.strides[1];
  gemm(g);
}

double stored_bytes(const TensorView& operand) {
  const auto bytes = static_cast<double>(size_in_bytes(operand.sizes, operand.dtype));
  if (!operand.is_fractal_nz() || operand.rank() < 2 || operand.numel() == 0) return bytes;
  const int64_t rows = operand.sizes.back(1), columns = operand.sizes.back(0);
  const double matrices = static_cast<double>(operand.numel()) / static_cast<double>(rows * columns);
  return matrices * nz_bytes(rows, columns, static_cast<int>(element_bits(operand.dtype)));
}

Work work_of(const MatrixProduct& p) {
  Work work;
  const int64_t batches = batch_count(p.out), depth = p.left.sizes.back(0);
  work.cube_flops = product_flops(p.out.sizes.back(1), p.out.sizes.back(0), depth, batches);
  const double weight_bytes = stored_bytes(p.right);
  work.read_bytes = static_cast<double>(size_in_bytes(p.left.sizes, p.left.dtype)) + weight_bytes;
  if (chip().product == kAtlasInference && !p.right.is_fractal_nz()) {
    // The cube of 310P reads FRACTAL_NZ only: aclnnMatmul converts an ND operand first.
    work.read_bytes += weight_bytes;
    work.written_bytes += weight_bytes;
  }
  if (p.addend != nullptr) work.read_bytes += static_cast<double>(size_in_bytes(p.addend->sizes, p.addend->dtype));
  work.written_bytes += static_cast<double>(size_in_bytes(p.out.sizes, p.out.dtype));
  return work;
}

namespace {

TensorView insert_one(const TensorView& view, int at) {
  TensorView matrix = view;
  matrix.sizes = {};
  matrix.strides = {};
  for (int i = 0; i <= view.rank(); ++i) {
    if (i == at) {
      matrix.sizes.push_back(1);
      matrix.strides.push_back(1);
    }
    if (i == view.rank()) break;
    matrix.sizes.push_back(view.sizes[i]);
    matrix.strides.push_back(view.strides[i]);
  }
  return matrix;
}

}  // namespace

TensorView as_left_matrix(const TensorView& view) { return view.rank() == 1 ? insert_one(view, 0) : view; }

TensorView as_right_matrix(const TensorView& view) { return view.rank() == 1 ? insert_one(view, 1) : view; }

TensorView as_product(const TensorView& out, bool left_is_vector, bool right_is_vector) {
  TensorView matrix = out;
  if (right_is_vector) matrix = insert_one(matrix, matrix.rank());
  if (left_is_vector) matrix = insert_one(matrix, matrix.rank() - 1);
  return matrix;
}

}  // namespace emulator::aclnn
