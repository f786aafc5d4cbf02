"""Environment variables that stop an engine or change its collectives, before it is started."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from ascend_cli.doctor.findings import Finding, error
from ascend_cli.hardware import Host
from ascend_cli.hardware.host import spec_of
from ascend_cli.hardware.npu_smi import NpuSmiError
from ascend_facts.chips import UnknownChip


def check_variables(host: Host, values: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """What this shell would hand to a server on this machine's chips."""
    if values.get("HCCL_OP_EXPANSION_MODE") != "AI_CPU":
        return
    try:
        chips = [spec_of(chip) for chip in host.npu_smi().chips]
    except (NpuSmiError, UnknownChip):
        return  # a finding of check_chips
    for name in sorted({chip.soc_version for chip in chips if not chip.has_full_hccl}):
        why = "on this chip that mode knows AllReduce in a single communicator only, and vLLM makes several"
        yield error("hccl", f"HCCL_OP_EXPANSION_MODE is AI_CPU on {name}", why, "unset HCCL_OP_EXPANSION_MODE")
