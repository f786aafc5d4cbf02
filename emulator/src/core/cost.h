// The model of time: how long a unit of work takes on the emulated chip (core/chips.h), in nanoseconds.
//
// A kernel is bound by its slowest part (roofline; Williams et al., CACM 2009) and pays a fixed cost of launch:
//
//   launch + max(bytes / bandwidth, cube operations / cube peak, vector operations / vector peak)
//
// with the share of each peak that kernels reach in practice. What the model leaves out: contention of streams that
// overlap (each has the whole chip), the L2 cache, the order of memory accesses, clock throttling.
#pragma once

#include <cstdint>

#include "core/chips.h"
#include "core/task.h"

namespace emulator {

// What chips reach of their peaks, and the link to the host. All estimates: docs/fidelity.md says how far they carry.
struct CostConstants {
  double bandwidth_share = 0.80;  // decode kernels of A100 and H800 reach 0.80; no figure for Ascend was found
  double cube_share = 0.50;       // of the matrix peak, in prefill; assumed
  double vector_lanes = 128;      // elements a vector core handles in a cycle: 256 bytes of float16
  double host_link_gbps = 20.0;   // PCIe 4.0 x16: 32 GB/s raw
  double host_link_latency_us = 8.0;
};

const CostConstants& cost_constants();

int64_t kernel_cost_ns(const Work& work);

// A copy within device memory, or a fill.
int64_t device_copy_cost_ns(double read_bytes, double written_bytes);

// A copy over the host's link.
int64_t host_copy_cost_ns(double bytes);

// `wire_bytes` leave or enter each chip over the link.
int64_t transfer_cost_ns(const Link& link, double wire_bytes);

}  // namespace emulator
