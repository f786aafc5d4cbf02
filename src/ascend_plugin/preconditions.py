"""What must be so before this plugin answers vLLM; each refusal is one sentence. Imports neither torch nor vLLM."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from pathlib import Path

from ascend_facts.versions import row

ANY_VLLM = "ASCEND_PLUGIN_ANY_VLLM"  # for those who move to another release (docs/upgrading-vllm.md)
SET_ENV = (
    "/usr/local/Ascend/ascend-toolkit/set_env.sh",
    "/usr/local/Ascend/cann/set_env.sh",
    "~/Ascend/ascend-toolkit/set_env.sh",
    "~/Ascend/cann/set_env.sh",
)


def has_torchvision() -> bool:
    """Whether torchvision is there, which transformers prepares pictures with. Does not import it."""
    return find_spec("torchvision") is not None


def refuse_two_plugins() -> None:
    """vLLM takes one platform plugin; with vllm-ascend's beside this one it would stop with a puzzling error."""
    others = {plugin.name for plugin in entry_points(group="vllm.platform_plugins") if "vllm_ascend" in plugin.value}
    chosen = os.environ.get("VLLM_PLUGINS")
    if others and (chosen is None or others & set(chosen.split(","))):
        raise SystemExit(
            "vllm-ascend and ascend-plugin are both installed, and vLLM takes one platform plugin: run "
            "`pip uninstall vllm-ascend`, or choose for this run with VLLM_PLUGINS=ascend_plugin."
        )


def refuse_other_vllm() -> None:
    """Names of vLLM are replaced here, which in another release are others or mean something else."""
    found = vllm_version()
    if found is None or row().has_vllm(found) or os.environ.get(ANY_VLLM) == "1":
        return
    raise SystemExit(
        f"Install vllm=={row().vllm} (`python scripts/setup.py`): this ascend-plugin is made for it, and vLLM "
        f"{found} is installed; {ANY_VLLM}=1 tries all the same."
    )


@cache
def vllm_version() -> str | None:
    """None where vLLM is imported from a folder without metadata."""
    try:
        return version("vllm")
    except PackageNotFoundError:
        return None


def warn_of_missing_cann(reason: str) -> None:
    """One line a process: without it vLLM only says that it failed to infer the device type."""
    _warn_once(
        f"torch_npu is installed, but CANN's libraries cannot be loaded ({reason}): run `source "
        f"{set_env_script(SET_ENV)}` in this shell, or `ascend doctor` to see what is missing."
    )


@cache
def _warn_once(sentence: str) -> None:
    logging.getLogger("vllm.ascend_plugin").warning(sentence)


def set_env_script(candidates: Iterable[str]) -> str:
    """The set_env.sh that is there; else the one that CANN's installer makes."""
    paths = [Path(path).expanduser() for path in candidates]
    return str(next((path for path in paths if path.is_file()), paths[0]))
