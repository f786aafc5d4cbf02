// Facts of each chip (generated from chips.toml, the one home of chip facts) and the chip this process emulates.
#pragma once

#include <cstdint>
#include <string_view>

namespace emulator {

// Product families as CANN's operator documents name them; a bit mask in operator support tables.
enum Product : uint32_t {
  kAtlasInference = 1u << 0,  // Ascend 310P: Atlas inference products
  kA2 = 1u << 1,              // Ascend 910B
  kA3 = 1u << 2,              // Ascend 910_93
  kA5 = 1u << 3,              // Ascend 950
};

// How two chips talk: one way, and what a step of a collective takes before a byte has moved.
struct Link {
  const char* topology;  // PIX, PHB, HCCS, HCCS_SW, SIO, or X where there is no such pair
  double gbps;           // GB/s
  double latency_us;
};

struct Chip {
  const char* name;         // "310P3": what users type
  const char* soc_version;  // "Ascend310P3": what aclrtGetSocName answers
  Product product;
  int64_t memory_bytes[2];  // usable, by position on the card (chips of one Duo card differ)
  int chips_per_card;
  int cube_cores;
  int vector_cores;
  int64_t l2_bytes;
  bool has_bf16;
  bool has_fp8;
  int max_streams;
  int max_events;
  int max_notifies;
  double bandwidth_gbps;      // GB/s, marketed peak
  double fp16_tflops;
  double int8_tops;
  double launch_us;           // what the smallest operator takes; this and the shares are fitted (time_model.toml)
  double bandwidth_share;     // of the peaks that kernels reach
  double cube_share;
  double l2_share;            // of the memory's peak, where a vector operator's tensors fit into the second-level cache
  double fp8_tflops;          // 0 without fp8
  int cube_mhz;
  int vector_mhz;
  Link card_link;  // between the chips of one card
  Link node_link;  // between cards of one machine
};

const Chip& chip();  // ASCEND_EMULATOR_CHIP, 310P3 unless set

}  // namespace emulator
