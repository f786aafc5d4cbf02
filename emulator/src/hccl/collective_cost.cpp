#include "hccl/collective_cost.h"

#include <cmath>
#include <string_view>

namespace emulator::hccl {
namespace {

constexpr double kSmallReductionBytes = 256 << 10;  // hccl all_reduce_operator.cc: HCCL_SMALL_COUNT_256_KB
constexpr double kSmallSwitchedBytes = 512 << 10;   // a rank's part, on a switch: HCCL_SMALL_COUNT_512_KB
constexpr uint32_t kMostDoublingRanks = 8;
constexpr double kReducedAccesses = 3;  // two operands are read and one is written for each byte that is reduced

enum class Algorithm { kDirect, kDoubling, kOneShot, kMesh, kRing };

// What a rank does: steps one after the other, and the parts of the buffer that cross its link and that it reduces.
struct Load {
  double steps, wire, reduced;
};

bool is_message(Operation operation) {
  return operation == Operation::kSend || operation == Operation::kReceive || operation == Operation::kBatchSendReceive;
}

bool is_pcie(std::string_view topology) {
  return topology == "PIX" || topology == "PHB";
}

bool is_switch(std::string_view topology) {
  return topology == "HCCS_SW" || topology == "SIO";
}

// Source: SelectAlgfor310P3DUO, SelectAlgfor910B with NonDeterministicSelector, SelectAlgfor91093.
Algorithm choose(std::string_view topology, Operation operation, uint32_t ranks, double size_bytes) {
  if (is_message(operation)) return Algorithm::kDirect;
  const bool reduces_all = operation == Operation::kAllReduce;
  const bool is_small = size_bytes <= kSmallReductionBytes;
  if (is_pcie(topology)) {
    const bool is_power = (ranks & (ranks - 1)) == 0 && ranks <= kMostDoublingRanks;
    return reduces_all && (ranks == 2 || (is_power && is_small)) ? Algorithm::kDoubling : Algorithm::kRing;
  }
  if (topology == "HCCS") return reduces_all && is_small ? Algorithm::kOneShot : Algorithm::kMesh;
  if (is_switch(topology) && reduces_all && size_bytes <= kSmallSwitchedBytes * ranks) return Algorithm::kOneShot;
  return Algorithm::kRing;
}

// Source: hccl docs, coll_algo_intro: Mesh.md, Ring.md.
Load load(Algorithm algorithm, std::string_view topology, Operation operation, double ranks) {
  const bool two_phases = operation == Operation::kAllReduce || operation == Operation::kBroadcast ||
                          operation == Operation::kReduce;  // scatter or reduce-scatter, then gather
  const bool reduces = operation == Operation::kAllReduce || operation == Operation::kReduce ||
                       operation == Operation::kReduceScatter || operation == Operation::kReduceScatterV;
  const double phases = two_phases ? 2 : 1, reduced = reduces ? (ranks - 1) / ranks : 0;
  switch (algorithm) {
    case Algorithm::kDirect: return {1, 1, 0};
    case Algorithm::kDoubling: return {std::log2(ranks), std::log2(ranks), std::log2(ranks)};
    case Algorithm::kOneShot: return {1, topology == "HCCS" ? 1 : ranks - 1, ranks - 1};  // a switch has one port
    case Algorithm::kMesh: return {phases, phases / ranks, reduced};
    case Algorithm::kRing: break;
  }
  return {phases * (ranks - 1), phases * (ranks - 1) / ranks, reduced};
}

}  // namespace

int64_t collective_cost_ns(const Link& link, Operation operation, uint32_t ranks, double size_bytes) {
  if (ranks < 2) return 0;
  const Load load = hccl::load(choose(link.topology, operation, ranks, size_bytes), link.topology, operation, ranks);
  const double moving = link.gbps > 0 ? size_bytes * load.wire / link.gbps : 0;
  const double reducing = size_bytes * load.reduced * kReducedAccesses / (chip().bandwidth_gbps * chip().bandwidth_share);
  return static_cast<int64_t>(load.steps * link.latency_us * 1e3 + moving + reducing + 0.5);
}

}  // namespace emulator::hccl
