// Forms of launches: which operator, with which types, formats, ranks and layouts. Written only where asked for
// (ASCEND_EMULATOR_FORMS=1), because a line of text is made for every launch.
//
//   aclnnMatmulWeightNz self=float16[2] mat2=float16:NZ[2] out=float16[2]
//   aclnnInplaceCopy selfRef=int32[1]v src=int64[1]       v: the elements do not lie one behind another
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "core/tensor.h"

namespace emulator {

bool records_forms();
void record_form(const std::string& form);
std::map<std::string, uint64_t> recorded_forms();
void clear_forms();

std::string form_of(aclDataType dtype, aclFormat format, int rank, bool is_view);
std::string form_of(const TensorView& tensor);

}  // namespace emulator
