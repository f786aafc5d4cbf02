"""The journey walks: every command line of docs/journey.md and its Chinese page, executed in order by a shell.

`docker` and `vllm` are stand-ins (journey/): docker's runs a container's command on this machine as the container's
user, with its key, mounts and published port; vllm's server checks keys as vLLM does. Everything of `ascend` is real,
on hosts with the npu-smi of two Duo cards, of A2 and of A3. In a network of its own, port 8000 is free.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import QWEN3_32B

host_layout = pytest.importorskip("ascend_emulator.host", reason="the emulator, which lays hosts out, is not installed")
DOCS = Path(__file__).parents[3] / "docs"
REPOSITORY = DOCS.parent
PAGES = {"en": DOCS / "journey.md", "zh": DOCS / "zh/journey.md"}
HOSTS = [("310P3", 4), ("910B3", 8), ("910_9391", 16)]
SYSTEM_PYTHON = "/usr/bin/python3"
STAYS = "ascend serve Qwen/Qwen3-32B"  # becomes the server: it is started beside, asked, and ended


def _has_own_network() -> bool:
    command = ["unshare", "--net", "ip", "link", "set", "lo", "up"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


pytestmark = pytest.mark.skipif(
    os.getuid() != 0 or not Path(SYSTEM_PYTHON).exists() or not _has_own_network(),
    reason="needs root, the system's own Python, and the right to a network of its own",
)


def lines_of(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line.strip() for line in re.findall(r"^ {4}(\S.*)$", text, re.MULTILINE)]


def walked(line: str) -> str:
    """A line as the walk executes it, between marks; the one that stays is asked and ended."""
    if line == STAYS:
        line = (
            f"{{ {line} & server=$!; for _ in $(seq 100); do curl -fs http://localhost:8000/health && break; "
            'sleep 0.1; done; curl -fs -H "Authorization: Bearer $VLLM_API_KEY" http://127.0.0.1:8000/v1/models; '
            "code=$?; "
            "kill $server; wait $server; (exit $code); }"
        )
    return f"echo '@@@'\n{line}\necho \"@@= $?\"\n"


def write_whole_weights(file: Path, config: dict[str, Any]) -> None:
    """Every tensor of a Qwen3 checkpoint in bfloat16, with zeros that take no room on the disk."""
    width, heads, inner = config["hidden_size"], config["num_attention_heads"], config["intermediate_size"]
    head, kv_heads = config["head_dim"], config["num_key_value_heads"]
    layer = {
        "input_layernorm": [width],
        "post_attention_layernorm": [width],
        "self_attn.q_norm": [head],
        "self_attn.k_norm": [head],
        "self_attn.q_proj": [heads * head, width],
        "self_attn.k_proj": [kv_heads * head, width],
        "self_attn.v_proj": [kv_heads * head, width],
        "self_attn.o_proj": [width, heads * head],
        "mlp.gate_proj": [inner, width],
        "mlp.up_proj": [inner, width],
        "mlp.down_proj": [width, inner],
    }
    shapes = {"model.embed_tokens.weight": [config["vocab_size"], width], "model.norm.weight": [width]}
    shapes["lm_head.weight"] = [config["vocab_size"], width]
    for index in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{index}.{name}.weight": shape for name, shape in layer.items()}
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(file, 8 + len(text) + end)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A working folder with the stand-ins, the repository to build from, and complete weights in the hub's cache."""
    work, commands = tmp_path / "work", tmp_path / "bin"
    commands.mkdir()
    work.mkdir()
    for name in ("vllm", "docker"):
        text = (Path(__file__).with_name("journey") / name).read_text()
        # docker's needs yaml; vllm's is run by the container's user, who may not read this Python's home.
        python = sys.executable if name == "docker" else SYSTEM_PYTHON
        (commands / name).write_text(text.replace("#!/usr/bin/env python3", f"#!{python}"))
    (commands / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
    # Another place for Python, so that what lies beside it (the real vllm) is not found before the stand-ins.
    (commands / "ascend").write_text(
        f"#!{sys.executable}\nimport sys\nsys.executable = '{tmp_path}/none/python'\n"
        "from ascend_cli.cli import main\nmain()\n"
    )
    for command in commands.iterdir():
        command.chmod(0o755)
    shutil.copytree(REPOSITORY / "requirements", work / "requirements")
    snapshot = tmp_path / "cache/huggingface/hub/models--Qwen--Qwen3-32B/snapshots/0123"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(QWEN3_32B))
    write_whole_weights(snapshot / "model.safetensors", QWEN3_32B)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)  # the container's user reads through them
    yield work
    state = tmp_path / "state.json"
    for processes in json.loads(state.read_text())["containers"].values() if state.exists() else []:
        for process in processes:
            subprocess.run(["kill", "-9", f"-{process}"], capture_output=True, check=False)


WALKS = [(language, *host) for language in PAGES for host in HOSTS]
# One in each language, on different hosts, is walked with every commit; a walk takes a minute.
OFTEN = (WALKS[0], WALKS[-1])


@pytest.mark.parametrize(
    ("language", "chip", "count"),
    [pytest.param(*walk, marks=() if walk in OFTEN else pytest.mark.slow) for walk in WALKS],
)
def test_every_line_walks(place: Path, tmp_path: Path, language: str, chip: str, count: int) -> None:
    host = host_layout.create(tmp_path / "host", chip, count)
    lines = lines_of(PAGES[language])
    script = "ip link set lo up\n" + "".join(map(walked, lines))
    paths = [str(tmp_path / "bin"), str(host.npu_smi.parent), os.environ["PATH"]]
    environment = {
        "PATH": ":".join(paths),
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "STATE": str(tmp_path / "state.json"),
        "ASCEND_EMULATOR": "0",
        "ASCEND_TEST_COMMANDS": str(tmp_path / "bin"),
    }
    done = subprocess.run(
        ["unshare", "--net", "/bin/bash", "-c", script],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=840,
        check=False,
    )
    parts = done.stdout.split("@@@\n")[1:]
    assert len(parts) == len(lines), done.stdout + done.stderr
    for line, part in zip(lines, parts, strict=True):
        shown, _, code = part.rpartition("@@= ")
        allowed = ("0", "1") if line == "ascend doctor" else ("0",)  # the machine under the test has no driver
        assert code.strip() in allowed, f"{line}\n{shown}\n{done.stderr}"
    answers = dict(zip(lines, parts, strict=True))
    assert "Paris" in next(part for line, part in answers.items() if line.startswith("vllm chat"))
    assert "qwen3-32b" in next(part for line, part in answers.items() if line.startswith("curl"))
    measured = next(part for line, part in answers.items() if line.startswith("ascend bench serve"))
    assert "Serving Benchmark Result" in measured and "NOT AUDITED" not in measured, "the proxy shows /metrics"
    assert "Share of the roofline" in measured
    key = (place / "vllm-api-key").read_text().strip()
    assert len(key) == 64 and (place / "vllm-api-key").stat().st_uid == 1000
    kept = [file for file in place.rglob("*") if file.is_file() and file.name != "vllm-api-key"]
    assert all(key not in file.read_text(errors="replace") for file in kept), (
        "no result, manifest or script has the key"
    )


def test_both_languages_have_the_same_lines() -> None:
    assert lines_of(PAGES["en"]) == lines_of(PAGES["zh"])
