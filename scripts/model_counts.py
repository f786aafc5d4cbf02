"""Print what this project counts of released models beside what their authors publish, as a table in Markdown.

    .venv/bin/python scripts/model_counts.py                # the released models of the tests' table
    .venv/bin/python scripts/model_counts.py --vllm         # tiny models: vLLM's own modules and caches, emulated chips

Bytes are those of sixteen-bit weights; a token's cache is that of layers that look back over everything, on one chip.
Nothing here is asserted: tests/unit/cli/test_published_models.py and tests/models/test_counts_of_vllm.py do that.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from math import prod
from pathlib import Path

from ascend_facts.memory_plan import MemoryRequest, weight_bytes
from ascend_facts.model_shape import read_model_shape

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "tests/unit/cli/data/published_models.json"


def released() -> list[str]:
    lines = ["| model | parameters published | counted | off | bytes published | counted | cache a token | counted |"]
    lines.append("| --- | --: | --: | --: | --: | --: | --: | --: |")
    for row in json.loads(TABLE.read_text(encoding="utf-8")):
        shape = read_model_shape(row["config"])
        off = shape.parameters / row["parameters"] - 1
        held = weight_bytes(shape, MemoryRequest(1, 1 << 40))
        cache = "-" if row["cache"] is None else f"{prod(row['cache']):,}"
        lines.append(
            f"| {row['name']} | {row['parameters']:,}{'' if row.get('exact') else ' (stated)'} | {shape.parameters:,} "
            f"| {off:+.2%} | {2 * row['parameters']:,} | {held:,} | {cache} | {2 * shape.cache_values_per_token(1):,} |"
        )
    return lines


def of_vllm() -> list[str]:
    command = [sys.executable, str(ROOT / "tests/models/vllm_counts.py")]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    lines = ["| tiny model | parameters by vLLM | counted | cache a token by vLLM | counted |"]
    lines.append("| --- | --: | --: | --: | --: |")
    for line in found.splitlines():
        if line.startswith("{"):
            one = json.loads(line)
            figures = (one["parameters"], one["counted"], one["cache"], one["cache_counted"])
            lines.append(f"| {one['model']} | " + " | ".join(f"{figure:,}" for figure in figures) + " |")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm", action="store_true", help="tiny models, as vLLM builds them")
    print("\n".join(of_vllm() if parser.parse_args().vllm else released()))
