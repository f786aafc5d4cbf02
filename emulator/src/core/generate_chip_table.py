"""Write the chip table as a C++ initializer list: generate_chip_table.py FOLDER chip_table.inc.

FOLDER holds chips.toml, time_model.toml and chips.py, which reads them.

The output is the body of an array, one designated initializer of `struct Chip` (core/chips.h) a line:

    constexpr Chip kChips[] = {
    #include "chip_table.inc"
    };
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

PRODUCTS = {"atlas_inference": "kAtlasInference", "a2": "kA2", "a3": "kA3", "a5": "kA5"}


def load_chips_module(loader: Path) -> ModuleType:
    """chips.py, loaded by path: the build must not import a package (or torch) to read the table."""
    spec = importlib.util.spec_from_file_location("chips", loader)
    if spec is None or spec.loader is None:
        sys.exit(f"{loader} is missing: it reads the chip table.")
    module = importlib.util.module_from_spec(spec)
    sys.modules["chips"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def row(chip: Any) -> str:
    """One designated initializer, in the declaration order of struct Chip."""
    memory = [chip.usable_memory_bytes(position) for position in range(2)]
    values = {
        "name": literal(chip.name),
        "soc_version": literal(chip.soc_version),
        "product": PRODUCTS[chip.product],
        "memory_bytes": f"{{{memory[0]}, {memory[1]}}}",
        "chips_per_card": chip.chips_per_card,
        "cube_cores": chip.cube_cores,
        "vector_cores": chip.vector_cores,
        "l2_bytes": chip.l2_mib << 20,
        "has_bf16": literal(chip.has_bf16),
        "has_fp8": literal(chip.has_fp8),
        "max_streams": chip.max_streams,
        "max_events": chip.max_events,
        "max_notifies": chip.max_notifies,
        "bandwidth_gbps": chip.bandwidth_gbps,
        "fp16_tflops": chip.fp16_tflops,
        "int8_tops": chip.int8_tops,
        "launch_us": chip.launch_us,
        "bandwidth_share": chip.bandwidth_share,
        "cube_share": chip.cube_share,
        "l2_share": chip.l2_share,
        "fp8_tflops": chip.fp8_tflops,
        "cube_mhz": chip.cube_mhz,
        "vector_mhz": chip.vector_mhz,
        "card_link": link(chip.card_link),
        "node_link": link(chip.node_link),
    }
    return "{" + ", ".join(f".{name} = {value}" for name, value in values.items()) + "},"


def link(value: Any) -> str:
    return f'{{.topology = "{value.topology}", .gbps = {value.gbps}, .latency_us = {value.latency_us}}}'


def main() -> None:
    folder, output = map(Path, sys.argv[1:])
    chips = load_chips_module(folder / "chips.py").load(folder / "chips.toml")
    output.write_text("\n".join(["// Generated from chips.toml. Do not edit.", *map(row, chips), ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
