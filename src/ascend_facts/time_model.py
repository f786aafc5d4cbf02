"""How long an operator or a collective takes on a chip: the arithmetic of the emulator's clock, without an emulator.

The constants are time_model.toml's, in the chip's entry; `python -m benchmarks calibrate` fits them. The same formulas
are in emulator/src/core/cost.cpp and emulator/src/hccl/collective_cost.cpp, and a test holds them to these.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from functools import cache
from typing import Literal

from ascend_facts.chips import CONSTANTS, ChipSpec, Link

Collective = Literal["all_reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast", "reduce", "message"]
Algorithm = Literal["doubling", "one_shot", "mesh", "ring", "direct"]

TILE_ROWS, TILE_COLUMNS = 128, 256  # of a product that one core makes at a time; CANN's basic block for float16
CUBE_BLOCK = 16  # rows, columns and sixteen-bit depth of the cube; 32 deep for eight bits
SMALL_REDUCTION_BYTES = 256 << 10  # hccl all_reduce_operator.cc, HCCL_SMALL_COUNT_256_KB
SMALL_SWITCHED_BYTES = 512 << 10  # a rank's part, on a switch: HCCL_SMALL_COUNT_512_KB
MOST_DOUBLING_RANKS = 8
REDUCED_ACCESSES = 3  # two operands are read and one is written for each byte that is reduced


def product_operations(chip: ChipSpec, rows: int, columns: int, depth: int, batch: int = 1, bits: int = 16) -> float:
    """What the cube does for a product: operands padded to its blocks, and cores idle in the last round of tiles.

    Where there are fewer tiles than cores, the depth is split and no core is idle.
    """
    padded = [_round_up(rows, CUBE_BLOCK), _round_up(columns, CUBE_BLOCK), _round_up(depth, CUBE_BLOCK * 16 // bits)]
    tiles = batch * math.ceil(rows / TILE_ROWS) * math.ceil(columns / TILE_COLUMNS)
    rounds = math.ceil(tiles / chip.cube_cores)
    busy = tiles / (rounds * chip.cube_cores) if tiles >= chip.cube_cores else 1.0
    return 2.0 * batch * math.prod(padded) / busy


def kernel_us(chip: ChipSpec, size_bytes: float, operations: float = 0.0, bits: int = 16) -> float:
    """One operator: a launch, and the longer of its bytes and of what the cube does."""
    share = chip.bandwidth_share
    if not operations and size_bytes <= chip.l2_mib << 20:
        share = chip.l2_share
    moving_us = size_bytes / (chip.bandwidth_gbps * share * 1e3)
    peak = chip.int8_tops if bits == 8 else chip.fp16_tflops
    return chip.launch_us + max(moving_us, operations / (peak * chip.cube_share * 1e6))


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


@dataclass(frozen=True, slots=True)
class Errors:
    """How far the model was off for measurements that its fit had not seen (docs/fidelity.md lists them)."""

    half: float  # of the rows: model over measured differs from one by no more
    most: float  # four in five
    rows: int

    def bounds(self, modeled: float) -> tuple[float, float]:
        """What four in five measurements show where the model says `modeled`."""
        return modeled / (1 + self.most), modeled / (1 - self.most)


@cache
def errors() -> Errors:
    return Errors(**tomllib.loads(CONSTANTS.read_text(encoding="utf-8"))["errors"])


# ------------------------------------------------------------------------------------------------------ collectives


def algorithm(link: Link, collective: Collective, ranks: int, size_bytes: float) -> Algorithm:
    """What HCCL chooses on this topology; `size_bytes` are those of the whole buffer.

    Source: hccl, all_reduce_operator.cc (SelectAlgfor310P3DUO, SelectAlgfor910B with NonDeterministicSelector,
    SelectAlgfor91093), and the user guide's pages on algorithms.
    """
    if collective == "message":
        return "direct"
    reduces_all = collective == "all_reduce"
    if link.topology in ("PIX", "PHB"):
        is_power = ranks & (ranks - 1) == 0 and ranks <= MOST_DOUBLING_RANKS
        if reduces_all and (ranks == 2 or (is_power and size_bytes <= SMALL_REDUCTION_BYTES)):
            return "doubling"
        return "ring"
    if link.topology == "HCCS":
        return "one_shot" if reduces_all and size_bytes <= SMALL_REDUCTION_BYTES else "mesh"
    if link.topology in ("HCCS_SW", "SIO"):
        return "one_shot" if reduces_all and size_bytes <= SMALL_SWITCHED_BYTES * ranks else "ring"
    return "ring"


def collective_us(chip: ChipSpec, link: Link, collective: Collective, ranks: int, size_bytes: float) -> float:
    """HCCL's alpha-beta-gamma form of a collective whose buffer has `size_bytes` in all.

    Source: hccl docs, coll_algo_intro (Mesh.md, Ring.md, algo_intro.md): steps, bytes over a link and bytes reduced.
    """
    if ranks < 2:
        return 0.0
    steps, wire, reduced = _loads(link, collective, ranks)[algorithm(link, collective, ranks, size_bytes)]
    moving_us = size_bytes * wire / (link.gbps * 1e3)
    reducing_us = size_bytes * reduced * REDUCED_ACCESSES / (chip.bandwidth_gbps * chip.bandwidth_share * 1e3)
    return steps * link.latency_us + moving_us + reducing_us


def _loads(link: Link, collective: Collective, ranks: int) -> dict[Algorithm, tuple[float, float, float]]:
    """By algorithm: steps, parts of the buffer that cross a link one after the other, parts that a rank reduces."""
    part, rounds = 1 / ranks, math.log2(ranks)
    two_phases = collective in ("all_reduce", "broadcast", "reduce")  # scatter or reduce-scatter, then gather
    phases = 2 if two_phases else 1
    reduced = (ranks - 1) * part if collective in ("all_reduce", "reduce", "reduce_scatter") else 0.0
    shared_port = link.topology != "HCCS"  # of a switch: the peers' data come through one port
    return {
        "doubling": (rounds, rounds, rounds),
        "one_shot": (1, ranks - 1 if shared_port else 1, ranks - 1),
        "mesh": (phases, phases * part, reduced),
        "ring": (phases * (ranks - 1), phases * (ranks - 1) * part, reduced),
        "direct": (1, 1, 0),
    }
