"""The chip table: what it says, how it is asked, and that the C++ side gets all of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from ascend_emulator import chips
from ascend_emulator.chips import ChipTableError, UnknownChip, UnsupportedHeadSize, find, load

EMULATOR = Path(__file__).parents[2]
NAMES = ["310P3", "310P1", "910B1", "910B2", "910B3", "910B4", "910_9391", "910_9392", "950PR", "950DT"]


def test_every_chip_is_there() -> None:
    assert [chip.name for chip in chips.chips()] == NAMES


def test_the_duo_is_as_published_reports_show_it() -> None:
    duo = find("Atlas 300I Duo")
    assert duo.name == "310P3"
    assert duo.chips_per_card == 2
    assert duo.memory_mib == (44278, 43693)
    assert f"{duo.usable_memory_bytes(0) / 2**30:.2f} GiB" == "43.24 GiB"  # torch_npu's out-of-memory message
    assert duo.usable_memory_bytes(3) == 43693 << 20
    assert duo.preferred_dtype == "float16"
    assert not duo.has_bf16
    assert (duo.max_streams, duo.max_events, duo.max_notifies) == (1024, 1024, 1024)


@pytest.mark.parametrize("chip", chips.chips(), ids=lambda chip: chip.name)
def test_peaks_follow_from_cores_and_frequency(chip: chips.ChipSpec) -> None:
    """PEAK in chips.toml: 16*16*16 multiply-adds a cycle and core, twice that for int8."""
    fp16_tflops = chip.cube_cores * 16**3 * 2 * chip.cube_mhz / 1e6
    assert chip.fp16_tflops == pytest.approx(fp16_tflops, rel=2e-3)
    assert chip.int8_tops == pytest.approx(2 * fp16_tflops, rel=2e-3)


@pytest.mark.parametrize("chip", chips.chips(), ids=lambda chip: chip.name)
def test_an_entry_is_coherent(chip: chips.ChipSpec) -> None:
    assert len(chip.memory_mib) == len(chip.usable_memory_mib) == chip.chips_per_card
    assert all(usable <= shown for usable, shown in zip(chip.usable_memory_mib, chip.memory_mib, strict=True))
    assert chip.chips_per_server % chip.chips_per_card == 0
    assert (chip.attention == "paged_nz") == (chip.kv_cache_format == "nz")
    assert chip.has_fp8 == ("float8_e4m3fn" in chip.matmul_dtypes)
    assert (chip.card_link.topology == "X") == (chip.chips_per_card == 1) or chip.name == "310P1"


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("310p3", "310P3"),
        ("Ascend310P3", "310P3"),
        (" ascend910B4 ", "910B4"),
        ("310p", "310P3"),
        ("Ascend310P3vir04", "310P3"),
        ("Ascend910B4-1", "910B4"),
        ("Ascend910B2C", "910B2"),
        ("Ascend910_9382", "910_9391"),
        ("Ascend950DT_9588", "950DT"),
        ("atlas 300i duo", "310P3"),
    ],
)
def test_a_chip_answers_to_its_names(asked: str, name: str) -> None:
    assert find(asked).name == name


@pytest.mark.parametrize("asked", ["", "h100", "Ascend910A", "9"])
def test_an_unknown_chip_is_answered_with_the_known_ones(asked: str) -> None:
    with pytest.raises(UnknownChip, match="choose one of 310P3, 310P1, 910B1"):
        find(asked)


def test_block_size_shrinks_with_the_head_on_310p() -> None:
    duo = find("310P3")
    assert [duo.kv_block_size(head) for head in (64, 128, 256)] == [128, 128, 64]
    with pytest.raises(UnsupportedHeadSize, match="no head size above 256; this model has 512"):
        duo.kv_block_size(512)
    assert find("910B3").kv_block_size(512) == 128


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("cube_cores = 8 ", "cube_cors = 8 "), "unknown field cube_cors"),
        (("cube_cores = 8 ", "# "), "cube_cores"),
        (("cube_cores = 8 ", 'cube_cores = "8" '), "cube_cores is '8', expected int"),
        (('family = "310p"', 'family = "310q"'), "family '310q' is not one of"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, change: tuple[str, str], complaint: str) -> None:
    table = tmp_path / "chips.toml"
    table.write_text(chips.TABLE.read_text().replace(*change, 1))
    with pytest.raises(ChipTableError, match=complaint):
        load(table)


def test_the_generated_rows_fill_struct_chip(tmp_path: Path) -> None:
    """C++ ignores a field that no designator names, so the two lists are compared here."""
    output = tmp_path / "chip_table.inc"
    generator = EMULATOR / "src/core/generate_chip_table.py"
    subprocess.run([sys.executable, generator, chips.TABLE.parent, output], check=True)
    rows = [line for line in output.read_text().splitlines() if line.startswith("{")]
    assert len(rows) == len(NAMES)

    header = (EMULATOR / "src/core/chips.h").read_text()
    body = re.search(r"struct Chip \{(.*?)\n\};", header, re.DOTALL)
    assert body is not None
    declared = re.findall(r"(\w+)(?:\[\d+\])?;", re.sub(r"//.*", "", body[1]))
    nested_removed = re.sub(r"\{(?!\.name)[^{}]*\}", "", rows[0])
    assert re.findall(r"\.(\w+) =", nested_removed) == declared
