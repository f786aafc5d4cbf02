#include "core/cost.h"

#include <algorithm>

namespace emulator {
namespace {

constexpr double kMicrosecond = 1e3;  // in nanoseconds; GB/s are bytes a nanosecond, Tera/s are operations a 1e-3 ns

int64_t rounded(double ns) {
  return static_cast<int64_t>(ns + 0.5);
}

double memory_ns(double bytes) {
  return bytes / (chip().bandwidth_gbps * cost_constants().bandwidth_share);
}

double cube_ns(const Work& work) {
  const double tera = work.int8_cube ? chip().int8_tops : chip().fp16_tflops;
  return work.cube_flops / (tera * 1e3 * cost_constants().cube_share);
}

// The AI cores of 310P have vector units besides those of its separate vector cores.
double vector_ns(const Work& work) {
  const int units = chip().vector_cores + (chip().product == kAtlasInference ? chip().cube_cores : 0);
  return work.vector_flops / (units * cost_constants().vector_lanes * chip().vector_mhz * 1e-3);
}

}  // namespace

const CostConstants& cost_constants() {
  static constexpr CostConstants constants;
  return constants;
}

int64_t kernel_cost_ns(const Work& work) {
  const double busy = std::max({memory_ns(work.read_bytes + work.written_bytes), cube_ns(work), vector_ns(work)});
  return rounded(chip().launch_us * kMicrosecond + busy + work.ai_cpu_ns);
}

int64_t device_copy_cost_ns(double read_bytes, double written_bytes) {
  return kernel_cost_ns({.read_bytes = read_bytes, .written_bytes = written_bytes});
}

int64_t host_copy_cost_ns(double bytes) {
  const auto& constants = cost_constants();
  return rounded(constants.host_link_latency_us * kMicrosecond + bytes / constants.host_link_gbps);
}

int64_t transfer_cost_ns(const Link& link, double wire_bytes) {
  const double moving = link.gbps > 0 ? wire_bytes / link.gbps : 0;
  return rounded((chip().launch_us + link.latency_us) * kMicrosecond + moving);
}

}  // namespace emulator
