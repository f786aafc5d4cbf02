"""Names of vLLM that the plugin replaces, overrides or reaches into are as they were when somebody last read them."""

from __future__ import annotations

import pytest
import vllm

from ascend_facts.versions import row
from tests.upstream import guarded
from tests.upstream.source import Missing, definition, look_up, split

RECORD = guarded.read_record()

pytestmark = pytest.mark.skipif(
    not row().has_vllm(vllm.__version__),
    reason="not the row's vLLM: `python -m tests.upstream` says what moved",
)


@pytest.mark.parametrize("name", RECORD)
def test_nothing_moved(name: str) -> None:
    difference = guarded.difference(name, RECORD[name])
    assert difference is None, difference


def test_every_name_is_recorded() -> None:
    names = guarded.names()
    missing = {name: ours for name, ours in names.items() if name not in RECORD}
    assert not missing, "Read these of vLLM beside ours, then run `python -m tests.upstream --accept NAME`."
    assert not RECORD.keys() - names.keys(), "No longer guarded: run `python -m tests.upstream --accept NAME` of any."


def test_every_name_that_the_plugin_imports_exists() -> None:
    gone = []
    for file, name in guarded.imported_names():
        try:
            _, inside = split(name)
            if inside:
                definition(name)
        except Missing as missing:
            gone.append(f"{file}: {missing}")
    assert not gone


def test_a_move_is_seen(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "vllm.v1.worker.gpu_worker.kernel_warmup"
    source = look_up(name)
    same = guarded.Guard("ours", source.signature, source.digest)
    assert guarded.difference(name, same) is None
    other = guarded.difference(name, guarded.Guard("ascend_plugin.x", "(worker)", "0"))
    assert other is not None and "its signature was (worker)" in other and f"--accept {name}" in other
    gone = guarded.difference("vllm.v1.worker.gpu_worker.no_such", guarded.Guard("ascend_plugin.x", "", ""))
    assert gone is not None and "has no no_such" in gone and "ascend_plugin.x" in gone
