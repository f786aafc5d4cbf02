// Forms of launches: which operator, with which types, formats, ranks and layouts. Only where ASCEND_EMULATOR_FORMS names a
// file: each process appends a line for a form when it launches it first, so that nothing is lost with one that is killed.
//
//   aclnnMatmulWeightNz self=float16[2] mat2=float16:NZ[2] out=float16[2]
//   aclnnInplaceCopy selfRef=int32[1]v src=int64[1]       v: the elements do not lie one behind another
#pragma once

#include <string>

#include "core/tensor.h"

namespace emulator {

bool records_forms();
void record_form(const std::string& form);

std::string form_of(aclDataType dtype, aclFormat format, int rank, bool is_view);
std::string form_of(const TensorView& tensor);

}  // namespace emulator
