"""`ascend bench serve` against the served embedded model: vLLM's table, audited, and a report of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from .server import Server, run

ASCEND = str(Path(sys.executable).with_name("ascend"))


def test_bench_serve_and_report(served_smollm2: Server, tmp_path: Path) -> None:
    rows = tmp_path / "rows.json"
    bench = run(
        *(ASCEND, "bench", "serve", "--url", served_smollm2.root_url, "--input-len", "32", "--output-len", "8"),
        *("--num-prompts", "3", "--max-concurrency", "1", "--num-warmups", "1", "--output", str(rows)),
        timeout_s=600,
    )
    assert bench.returncode == 0, bench.stderr[-4000:]
    assert " Serving Benchmark Result " in bench.stdout
    (row,) = json.loads(rows.read_text())["rows"]
    (measured,) = row["runs"]
    assert row["refused"] is None
    assert measured["output_tokens"] == 3 * 8
    assert 3 * 32 < measured["input_tokens"] < 3 * (32 + 96), "the server's count: the prompt and the chat template"
    report = run(ASCEND, "bench", "report", "atlas-300i-duo", str(rows), "--output", str(tmp_path / "report"))
    assert report.returncode == 0, report.stderr
    assert "smollm2" in (tmp_path / "report.html").read_text()
