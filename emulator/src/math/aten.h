// ATen views of emulated device memory. Header-only: every torch-using library of the emulator includes it.
#pragma once

#include <ATen/ATen.h>

#include "math/aten_view.h"
