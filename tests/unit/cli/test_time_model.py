"""The model of time: its constants are those of its measurements, and its forms those of HCCL's documents."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import pytest

from ascend_facts.chips import CONSTANTS, ChipSpec, find
from ascend_facts.time_model import algorithm, collective_us, kernel_us, product_operations
from benchmarks import calibrate
from benchmarks._calibration import predict, read

DUO, A2, A3 = find("310P3"), find("910B3"), find("910_9391")
KIB, MIB = 1 << 10, 1 << 20


# -------------------------------------------------------------------------------------------------------- calibration


def test_the_constants_are_what_the_fit_gives_again() -> None:
    """Nobody edits time_model.toml: the fit to calibration.toml gives the file, errors included."""
    calibration = read()
    constants = calibrate.constants_of(calibrate.fit(calibration))
    assert calibrate.document(calibration, constants) == CONSTANTS.read_text(encoding="utf-8")


def test_half_of_the_engine_rows_are_predicted_and_every_row_has_a_source() -> None:
    engines = [row for row in read().rows if row.kind == "engine"]
    assert sum(row.in_fit for row in engines) <= len(engines) / 2
    assert all(row.source for row in read().rows)
    assert all(row.was_found for row in read().rows if row.in_fit), "nothing is fitted to what cannot be looked up"


def test_a_row_is_predicted_with_the_constants_of_its_chip() -> None:
    """A product of one row is its bytes at the share of bandwidth, behind a launch."""
    calibration = read()
    row = next(row for row in calibration.rows if row.name.startswith("product of one row, 60 MB"))
    constants = calibrate.constants_of(calibrate.START)
    columns = row.facts["columns"]
    size_bytes = 2 * (4096 + 4096 * columns + columns)
    expected_us = 10.0 + size_bytes / (1200e3 * 0.8)
    assert predict(row, constants, calibration.chips) == pytest.approx(expected_us)


def test_every_family_has_constants() -> None:
    families = tomllib.loads(CONSTANTS.read_text(encoding="utf-8"))["families"]
    assert {chip.family for chip in (DUO, A2, A3, find("950PR"))} == families.keys()
    assert all(0 < entry[name] <= 1 for entry in families.values() for name in ("bandwidth_share", "cube_share"))


# ------------------------------------------------------------------------------------------------------------ kernels


def test_the_cube_works_on_whole_blocks_and_rounds_of_tiles() -> None:
    assert product_operations(DUO, 1, 100, 17) == 2 * 16 * 112 * 32
    assert product_operations(DUO, 1, 100, 17, bits=8) == 2 * 16 * 112 * 32
    assert product_operations(DUO, 1, 100, 33, bits=8) == 2 * 16 * 112 * 64
    # 9 tiles of 128 x 256 on 8 cores take two rounds; 8 take one; fewer than cores are split by depth.
    assert product_operations(DUO, 128, 9 * 256, 16) == pytest.approx(2 * 128 * 9 * 256 * 16 * 16 / 9)
    assert product_operations(DUO, 128, 8 * 256, 16) == 2 * 128 * 8 * 256 * 16
    assert product_operations(DUO, 128, 3 * 256, 16) == 2 * 128 * 3 * 256 * 16


def test_a_kernel_is_bound_by_bytes_cube_or_launch() -> None:
    chip = replace(A2, bandwidth_gbps=1000.0, fp16_tflops=100.0, int8_tops=200.0, launch_us=5.0, bandwidth_share=0.5,
                   cube_share=0.5, l2_share=2.0, l2_mib=1)  # fmt: skip
    assert kernel_us(chip, 0) == 5.0
    assert kernel_us(chip, 2_000_000) == 5.0 + 4.0
    assert kernel_us(chip, 1_000_000) == 5.0 + 0.5, "fits into the second-level cache"
    assert kernel_us(chip, 1_000_000, 1.0) == 5.0 + 2.0, "a product's weights come from memory"
    assert kernel_us(chip, 0, 5e8) == 5.0 + 10.0
    assert kernel_us(chip, 0, 5e8, bits=8) == 5.0 + 5.0


# -------------------------------------------------------------------------------------------------------- collectives


@pytest.mark.parametrize(
    ("chip", "ranks", "size_bytes", "chosen"),
    [
        (DUO, 2, 64 * MIB, "doubling"),  # a pair exchanges whole buffers, whatever their size
        (DUO, 4, 256 * KIB, "doubling"),
        (DUO, 4, 256 * KIB + 1, "ring"),
        (DUO, 6, 10 * KIB, "ring"),  # no power of two
        (DUO, 16, 10 * KIB, "ring"),
        (A2, 8, 256 * KIB, "one_shot"),
        (A2, 8, 256 * KIB + 1, "mesh"),
        (A2, 16, 10 * KIB, "ring"),  # two servers
        (A3, 8, 4 * MIB, "one_shot"),
        (A3, 8, 4 * MIB + 1, "ring"),
    ],
)
def test_all_reduce_takes_what_hccl_chooses(chip: ChipSpec, ranks: int, size_bytes: int, chosen: str) -> None:
    assert algorithm(chip.link_of(ranks), "all_reduce", ranks, size_bytes) == chosen


def test_the_forms_of_the_documents() -> None:
    """64 MiB over eight chips of a mesh: 2 a + 2/8 n b + 7/8 n g, and its two halves; over a ring of four 6 a."""
    chip = replace(A2, bandwidth_gbps=1000.0, bandwidth_share=1.0)
    link = replace(chip.node_link, gbps=10.0, latency_us=7.0)
    size_bytes, reducing_us = 64 * MIB, 3 * 64 * MIB / 1e6
    wire_us = size_bytes / 10e3
    reduced = reducing_us * 7 / 8
    assert collective_us(chip, link, "all_reduce", 8, size_bytes) == pytest.approx(14 + wire_us / 4 + reduced)
    assert collective_us(chip, link, "reduce_scatter", 8, size_bytes) == pytest.approx(7 + wire_us / 8 + reduced)
    assert collective_us(chip, link, "all_gather", 8, size_bytes) == pytest.approx(7 + wire_us / 8)
    ring = replace(link, topology="PHB")
    expected_us = 6 * 7 + wire_us * 6 / 4 + reducing_us * 3 / 4
    assert collective_us(chip, ring, "all_reduce", 4, size_bytes) == pytest.approx(expected_us)
    small = 10 * KIB
    expected_us = 2 * (7 + small / 10e3 + 3 * small / 1e6)
    assert collective_us(chip, ring, "all_reduce", 4, small) == pytest.approx(expected_us)
    assert collective_us(chip, link, "all_reduce", 8, small) == pytest.approx(7 + small / 10e3 + 7 * 3 * small / 1e6)
    assert collective_us(chip, link, "message", 2, small) == pytest.approx(7 + small / 10e3)
    assert collective_us(chip, link, "all_reduce", 1, small) == 0.0
