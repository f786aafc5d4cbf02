"""Options that no chip has: one sentence that names the option and what to do, and nothing where it is not given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from vllm.v1.attention.backends.registry import AttentionBackendEnum

from ascend_facts import chips
from ascend_plugin import refusals

DUO = chips.find("310P3")


def asking(**changes: Any) -> Any:
    """A configuration in which nothing is asked for but the changes."""
    return SimpleNamespace(
        model_config=SimpleNamespace(enable_prompt_embeds=changes.get("embeds", False)),
        attention_config=SimpleNamespace(backend=changes.get("backend")),
        offload_config=SimpleNamespace(
            uva=SimpleNamespace(cpu_offload_gb=changes.get("host_gb", 0)),
            prefetch=SimpleNamespace(offload_group_size=changes.get("group", 0)),
        ),
        cache_config=SimpleNamespace(
            kv_offloading_size=changes.get("cache_gb"), kv_offloading_backend=changes.get("keeper", "native")
        ),
        load_config=SimpleNamespace(load_format=changes.get("load_format", "auto")),
        parallel_config=SimpleNamespace(
            ubatch_size=changes.get("parts", 0), all2all_backend=changes.get("exchange", "allgather_reducescatter")
        ),
        weight_transfer_config=SimpleNamespace(backend="nccl") if "transfer" in changes else None,
    )


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"backend": AttentionBackendEnum.FLASH_ATTN}, "Leave out --attention-backend FLASH_ATTN"),
        ({"embeds": True}, "Leave out --enable-prompt-embeds and send tokens"),
        ({"host_gb": 1}, "Leave out --cpu-offload-gb and raise --tensor-parallel-size"),
        ({"group": 2}, "Leave out --offload-group-size and raise --tensor-parallel-size"),
        ({"cache_gb": 1.0, "keeper": "lmcache"}, "Leave out --kv-offloading-backend lmcache"),
        ({"load_format": "gguf"}, "Leave out --load-format gguf and name a checkpoint in safetensors"),
        ({"load_format": "bitsandbytes"}, "Leave out --load-format bitsandbytes"),
        ({"parts": 2}, "Leave out --ubatch-size"),
        ({"exchange": "deepep_low_latency"}, "Leave out --all2all-backend deepep_low_latency"),
        ({"transfer": True}, "Leave out --weight-transfer-config"),
    ],
)
def test_one_sentence(changes: dict[str, Any], remedy: str) -> None:
    said = refusals.refusal(asking(**changes), DUO)
    assert said is not None
    assert said.startswith(remedy)


@pytest.mark.parametrize(
    "changes", [{}, {"cache_gb": 1.0}, {"backend": AttentionBackendEnum.CUSTOM}, {"load_format": "dummy"}]
)
def test_what_is_not_refused(changes: dict[str, Any]) -> None:
    assert refusals.refusal(asking(**changes), DUO) is None


def test_batch_invariance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_BATCH_INVARIANT", "1")
    said = refusals.refusal(asking(), DUO)
    assert said is not None
    assert said.startswith("Unset VLLM_BATCH_INVARIANT")
    assert "--max-num-seqs 1" in said


def test_the_simple_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_USE_SIMPLE_KV_OFFLOAD", "1")
    assert refusals.refusal(asking(), DUO) is None
    said = refusals.refusal(asking(cache_gb=1.0), DUO)
    assert said is not None
    assert said.startswith("Unset VLLM_USE_SIMPLE_KV_OFFLOAD")
