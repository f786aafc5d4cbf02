// The model of time: how long a unit of work takes on the emulated chip (core/chips.h), in nanoseconds.
//
// A kernel is bound by its slowest part (roofline; Williams et al., CACM 2009) and pays what the smallest operator takes:
//
//   launch + max(bytes / bandwidth, cube operations / cube peak, vector operations / vector peak)
//
// with the share of each peak that kernels reach. The constants are the chip's, from ascend_facts/time_model.toml, which a
// fit to public measurements writes; ascend_facts/time_model.py is the same arithmetic in Python, and
// tests/runtime/test_clock.py compares them. Left out: contention of streams that overlap (each has the whole chip), the
// order of memory accesses, clock throttling.
#pragma once

#include <cstdint>

#include "core/chips.h"
#include "core/task.h"

namespace emulator {

// What nobody has measured in public, of any chip.
struct AssumedConstants {
  double vector_lanes = 128;      // elements a vector core handles in a cycle: 256 bytes of float16
  double host_link_gbps = 20.0;   // PCIe 4.0 x16: 32 GB/s raw
  double host_link_latency_us = 8.0;
};

// What the cube does for `batch` products of [rows, depth] by [depth, columns]: operands padded to its blocks, and cores
// idle in the last round of tiles. `bits` of an element: 16, or 8.
double product_flops(int64_t rows, int64_t columns, int64_t depth, int64_t batch = 1, int bits = 16);

// Bytes of a matrix in FRACTAL_NZ, which is stored in whole blocks.
double nz_bytes(int64_t rows, int64_t columns, int bits);

int64_t kernel_cost_ns(const Work& work);

// A copy within device memory, or a fill.
int64_t device_copy_cost_ns(double read_bytes, double written_bytes);

// A copy over the host's link.
int64_t host_copy_cost_ns(double bytes);

}  // namespace emulator
