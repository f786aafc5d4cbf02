"""What a container needs of the host to reach the chips: device nodes, and files of the driver."""

from __future__ import annotations

import os
from collections.abc import Iterable

COMMON_NODES = ("/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc")
DRIVER_MOUNTS = (
    "/usr/local/dcmi",
    "/usr/local/bin/npu-smi",
    "/usr/local/Ascend/driver/lib64/",
    "/usr/local/Ascend/driver/version.info",
    "/etc/ascend_install.info",
)
# Atlas 200I Pro is a root complex with the chip on board: other nodes, and the driver's files lie about the system.
# Source: vllm-ascend's quick start for it, which starts the container privileged besides.
ROOT_COMPLEX = "Atlas 200I Pro"
ROOT_COMPLEX_NODES = ("/dev/davinci_manager", "/dev/ascend_manager", "/dev/user_config")
ROOT_COMPLEX_MOUNTS = (
    "/etc/sys_version.conf",
    "/etc/ld.so.conf.d/mind_so.conf",
    "/etc/hdcBasic.cfg",
    "/etc/slog.conf",
    "/var/dmp_daemon",
    "/var/slogd",
    "/usr/lib64/libmmpa.so",
    "/usr/lib64/libcrypto.so.1.1",
    "/usr/lib64/libstackcore.so",
    "/usr/lib64/libtensorflow.so",
    "/usr/local/sbin/npu-smi",
    "/usr/local/Ascend/driver/lib64",
)
LIBYAML = "/usr/lib64/libyaml-0.so.2"  # where the driver's tools look for it
HOST_LIBYAML = {"ubuntu": "/usr/lib/aarch64-linux-gnu/libyaml-0.so.2", "openeuler": LIBYAML}
ROOT_COMPLEX_OPENEULER = "/usr/lib64/libsemanage.so.2"
HCCN_TOOL = "/usr/local/Ascend/driver/tools/hccn_tool"  # multi-node over RoCE; 310P has no such network
HCCN_CONF = "/etc/hccn.conf"


def device_nodes(devices: Iterable[int], root_complex: str) -> list[str]:
    common = ROOT_COMPLEX_NODES if root_complex else COMMON_NODES
    return [*(f"/dev/davinci{index}" for index in devices), *common]


def driver_mounts(root_complex: str) -> list[str]:
    """root_complex: the host's system, ubuntu or openeuler, where it is an Atlas 200I Pro; empty elsewhere."""
    if not root_complex:
        return list(DRIVER_MOUNTS)
    more = [ROOT_COMPLEX_OPENEULER] if root_complex == "openeuler" else []
    return [*ROOT_COMPLEX_MOUNTS, HOST_LIBYAML[root_complex], *more]


def mounted_at(path: str) -> str:
    """Where a file of the driver is found in the container."""
    return LIBYAML if path in HOST_LIBYAML.values() else path


def is_root_complex(chip: str) -> bool:
    """Whether a chip is given as Atlas 200I Pro, or this machine, with none given, has the nodes of one."""
    if chip:
        return chip.lower().replace("atlas", "").strip() == "200i pro"
    return os.path.exists("/dev/ascend_manager") and not os.path.exists("/dev/hisi_hdc")
