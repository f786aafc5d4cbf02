// aclnnNpuFormatCast: between row-major formats and FRACTAL_NZ, as torch_npu casts on 910B, 910_93 and 950 since CANN
// 9.1.0 (before, and on 310P, it is aclop's Identity). Source: ops-math v9.1.0 conversion/npu_format_cast/op_host/op_api/
// aclnn_npu_format_cast.cpp.
#include <algorithm>
#include <cstring>
#include <exception>

#include "aclnn/operator.h"
#include "aclnn_arguments.h"
#include "core/descriptors.h"
#include "math/nz.h"

namespace emulator::aclnn {
namespace {

constexpr int64_t kFractalBytes = 32;  // of a row of a fractal
constexpr int kAsTheSource = -1;       // additionalDtype

constexpr std::initializer_list<aclDataType> kDtypes = {ACL_INT8, ACL_UINT8, ACL_FLOAT, ACL_FLOAT16,
                                                        ACL_BF16, ACL_INT32, ACL_UINT32};

bool is_row_major(aclFormat format) {
  return format == ACL_FORMAT_ND || format == ACL_FORMAT_NCL || format == ACL_FORMAT_NCHW || format == ACL_FORMAT_NCDHW;
}

// Names no axes: cast whatever the width of the fractals.
bool is_plain(aclFormat format) { return format == ACL_FORMAT_ND || format == ACL_FORMAT_NCL; }

bool is_multiplied(aclDataType dtype) { return dtype == ACL_FLOAT || dtype == ACL_FLOAT16 || dtype == ACL_BF16; }

int64_t width_of(aclDataType dtype) { return std::max<int64_t>(1, kFractalBytes * 8 / element_bits(dtype)); }

// 950 alone refuses a column as the matrix that is multiplied with.
void require_no_column(const TensorView& source) {
  if (chip().product != kA5 || !is_multiplied(source.dtype)) return;
  require(source.sizes.back(1) != 1, "srcTensor has sizes %s, but its second last must not be 1.",
          to_string(source.sizes).c_str());
}

void require_castable(const TensorView& source) {
  require_dtype(source, "srcTensor", kDtypes);
  require_rank(source, "srcTensor", 2, 6);
}

// The matrices that lie in FRACTAL_NZ on one side of a cast; the other side has their sizes.
FractalMatrix fractals(const TensorView& nz, const Dims& sizes, const char* name) {
  const Dims& storage = nz.storage_sizes;
  const int rank = sizes.rank();
  FractalMatrix matrix;
  matrix.element_bytes = element_bits(nz.dtype) / 8;
  matrix.rows = sizes.back(1);
  matrix.cols = sizes.back(0);
  matrix.padded_rows = round_up(matrix.rows, kFractalRows);
  require(storage.rank() == rank + 2, "%s has %d storage dimensions, but FRACTAL_NZ of %d dimensions has %d.", name,
          storage.rank(), rank, rank + 2);
  matrix.c0 = storage.back(0);
  // Types of four bytes lie in fractals of 16 columns too (TransDataSpecial): so torch_npu asks for them.
  const bool fits = matrix.c0 == width_of(nz.dtype) || (matrix.element_bytes >= 4 && matrix.c0 == kFractalRows);
  bool same = fits && storage.back(1) == kFractalRows && storage.back(2) == matrix.padded_rows / kFractalRows &&
              storage.back(3) == matrix.column_blocks();
  for (int i = 0; i < rank - 2; ++i) {
    same = same && storage[i] == sizes[i];
    matrix.batch *= sizes[i];
  }
  require(same, "%s has a storage of sizes %s, which is not FRACTAL_NZ of %s elements of sizes %s.", name,
          to_string(storage).c_str(), dtype_name(nz.dtype), to_string(sizes).c_str());
  if (matrix.rows * matrix.cols == 0) matrix.batch = 0;
  return matrix;
}

// What dstTensor has to look like: its format and the sizes of its storage.
struct Target {
  aclFormat format;
  Dims storage_sizes;
};

Target target_of(const TensorView& source, int format, int additional) {
  if ((chip().product & (kA2 | kA3 | kA5)) == 0) fail(kParamInvalid, "%s has no aclnnNpuFormatCast.", chip().soc_version);
  require_dtype(source, "srcTensor", kDtypes);
  const auto by = additional == kAsTheSource ? source.dtype : static_cast<aclDataType>(additional);
  const bool to_nz = format == ACL_FORMAT_FRACTAL_NZ &&
                     (is_plain(source.format) || (by == source.dtype && is_row_major(source.format)));
  if (to_nz) {
    require_castable(source);
    require_no_column(source);
    require(std::find(kDtypes.begin(), kDtypes.end(), by) != kDtypes.end(), "additionalDtype is %d.", additional);
    if (chip().product == kA5 && by != source.dtype) {
      fail(kRuntimeError, "the emulator has no FRACTAL_NZ of %s in fractals of %s.", dtype_name(source.dtype), dtype_name(by));
    }
    Dims sizes(source.sizes.data(), source.sizes.size() - 2);
    const int64_t width = width_of(by);
    sizes.push_back(round_up(source.sizes.back(0), width) / width);
    sizes.push_back(round_up(source.sizes.back(1), kFractalRows) / kFractalRows);
    sizes.push_back(kFractalRows);
    sizes.push_back(width);
    return {ACL_FORMAT_FRACTAL_NZ, sizes};
  }
  if (source.format == ACL_FORMAT_FRACTAL_NZ && format == ACL_FORMAT_ND) return {ACL_FORMAT_ND, source.sizes};
  fail(kRuntimeError, "srcTensor has format %s, which is not cast to format %d with additionalDtype %d.",
       format_name(source.format), format, additional);
}

}  // namespace

ACLNN_CHECK(NpuFormatCast) {
  const TensorView &source = a.srcTensor, &target = a.dstTensor;
  require_castable(source);
  require_dtype(target, "dstTensor", kDtypes);
  require_same_dtype(source, "srcTensor", target, "dstTensor");
  require_sizes(target, "dstTensor", source.sizes);
  require(source.is_contiguous(), "srcTensor must be contiguous.");
  require(target.is_contiguous(), "dstTensor must be contiguous.");
  require((source.is_fractal_nz() ? source : target).storage_offset == 0,
          "the FRACTAL_NZ tensor of a cast must begin where its storage does.");
  if (is_row_major(source.format) && target.is_fractal_nz()) {
    require_no_column(source);
    fractals(target, source.sizes, "dstTensor");
  } else if (source.is_fractal_nz() && is_row_major(target.format)) {
    fractals(source, target.sizes, "srcTensor");
  } else {
    fail(kParamInvalid, "srcTensor has format %s and dstTensor %s, between which it does not cast.",
         format_name(source.format), format_name(target.format));
  }
}

ACLNN_KERNEL(NpuFormatCast) {
  const bool to_nz = a.dstTensor.is_fractal_nz();
  FractalMatrix matrix = to_nz ? fractals(a.dstTensor, a.srcTensor.sizes, "dstTensor")
                               : fractals(a.srcTensor, a.dstTensor.sizes, "srcTensor");
  matrix.data = (to_nz ? a.dstTensor : a.srcTensor).data();
  if (to_nz) {
    nd_to_nz(a.srcTensor.data(), matrix);
  } else {
    nz_to_nd(matrix, a.dstTensor.data());
  }
}

ACLNN_WORK(NpuFormatCast) {
  const auto bytes = [](const TensorView& view) {
    return size_in_bytes(view.is_fractal_nz() ? view.storage_sizes : view.sizes, view.dtype);
  };
  Work work;
  work.read_bytes = bytes(a.srcTensor);
  work.written_bytes = bytes(a.dstTensor);
  return work;
}

}  // namespace emulator::aclnn

// The caller frees dstShape with delete[].
extern "C" aclError aclnnNpuFormatCastCalculateSizeAndFormat(const aclTensor* source, int format, int additional,
                                                             int64_t** shape, uint64_t* shape_size,
                                                             int* actual_format) {
  using namespace emulator;
  return guarded("aclnnNpuFormatCastCalculateSizeAndFormat", [&] {
    if (source == nullptr || shape == nullptr || shape_size == nullptr || actual_format == nullptr) {
      fail(kParamNullptr, "srcTensor, dstShape, dstShapeSize and actualFormat must not be null.");
    }
    TensorView view;
    aclnn::assign(view, source);
    const aclnn::Target target = aclnn::target_of(view, format, additional);
    *shape = new int64_t[target.storage_sizes.size()];
    std::copy(target.storage_sizes.begin(), target.storage_sizes.end(), *shape);
    *shape_size = target.storage_sizes.size();
    *actual_format = target.format;
  });
}
