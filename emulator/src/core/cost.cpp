#include "core/cost.h"

#include <algorithm>

namespace emulator {
namespace {

constexpr double kMicrosecond = 1e3;  // in nanoseconds; GB/s are bytes a nanosecond, Tera/s are operations a 1e-3 ns
constexpr AssumedConstants kAssumed;
constexpr int64_t kTileRows = 128, kTileColumns = 256;  // of a product that one core makes at a time: CANN's basic block
constexpr int64_t kCubeBlock = 16;                      // rows, columns, and depth of sixteen bits; 32 deep for eight

int64_t rounded(double ns) {
  return static_cast<int64_t>(ns + 0.5);
}

int64_t parts(int64_t value, int64_t size) {
  return (value + size - 1) / size;
}

double memory_ns(double bytes, double share) {
  return bytes / (chip().bandwidth_gbps * share);
}

// Products read weights that no cache holds; what vector operators pass to one another stays in the second-level cache.
double share_of_bandwidth(const Work& work) {
  const bool fits = work.read_bytes + work.written_bytes <= static_cast<double>(chip().l2_bytes);
  return work.cube_flops == 0 && fits ? chip().l2_share : chip().bandwidth_share;
}

double cube_ns(const Work& work) {
  const double tera = work.int8_cube ? chip().int8_tops : chip().fp16_tflops;
  return work.cube_flops / (tera * 1e3 * chip().cube_share);
}

// The AI cores of 310P have vector units besides those of its separate vector cores.
double vector_ns(const Work& work) {
  const int units = chip().vector_cores + (chip().product == kAtlasInference ? chip().cube_cores : 0);
  return work.vector_flops / (units * kAssumed.vector_lanes * chip().vector_mhz * 1e-3);
}

}  // namespace

double product_flops(int64_t rows, int64_t columns, int64_t depth, int64_t batch, int bits) {
  if (rows <= 0 || columns <= 0 || depth <= 0 || batch <= 0) return 0;
  const int64_t deep = kCubeBlock * 16 / bits;
  const double padded = static_cast<double>(parts(rows, kCubeBlock) * kCubeBlock) *
                        static_cast<double>(parts(columns, kCubeBlock) * kCubeBlock) *
                        static_cast<double>(parts(depth, deep) * deep);
  const int64_t tiles = batch * parts(rows, kTileRows) * parts(columns, kTileColumns), cores = chip().cube_cores;
  // With fewer tiles than cores the depth is split, and no core is idle.
  const double busy = tiles < cores ? 1 : static_cast<double>(tiles) / static_cast<double>(parts(tiles, cores) * cores);
  return 2.0 * static_cast<double>(batch) * padded / busy;
}

double nz_bytes(int64_t rows, int64_t columns, int bits) {
  const int64_t wide = kCubeBlock * 16 / bits;
  return static_cast<double>(parts(rows, kCubeBlock) * kCubeBlock * parts(columns, wide) * wide) * bits / 8;
}

int64_t kernel_cost_ns(const Work& work) {
  const double moving = memory_ns(work.read_bytes + work.written_bytes, share_of_bandwidth(work));
  return rounded(chip().launch_us * kMicrosecond + std::max({moving, cube_ns(work), vector_ns(work)}) + work.ai_cpu_ns);
}

// The copy engine moves memory, not what the cores' cache holds.
int64_t device_copy_cost_ns(double read_bytes, double written_bytes) {
  return rounded(chip().launch_us * kMicrosecond + memory_ns(read_bytes + written_bytes, chip().bandwidth_share));
}

int64_t host_copy_cost_ns(double bytes) {
  return rounded(kAssumed.host_link_latency_us * kMicrosecond + bytes / kAssumed.host_link_gbps);
}

}  // namespace emulator
