"""Which chip is in this machine, asked of CANN without creating a device context.

A context in a front-end process would cost device memory and break forked children, so nothing here initializes
torch_npu: aclrtGetSocName reads the driver's answer and needs neither aclInit nor a device
(runtime source, acl_rt_impl_base.cpp).
"""

from __future__ import annotations

import ctypes
from functools import cache

from ascend_facts import chips, probes
from ascend_facts.chips import ChipSpec

ACL_LIBRARY = "libascendcl.so"
HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2  # aclrtMemcpyKind


class NoChip(RuntimeError):
    """There is no Ascend chip in this machine, or CANN is not installed."""


@cache
def load_error() -> str | None:
    """Why CANN's runtime cannot be loaded, in the loader's words; None if it can."""
    try:
        ctypes.CDLL(ACL_LIBRARY)
    except OSError as error:
        return str(error)
    return None


@cache
def soc_version() -> str | None:
    """CANN's name of the chip, such as "Ascend310P3"; None without CANN or without a chip."""
    if load_error():
        return None
    acl = ctypes.CDLL(ACL_LIBRARY)
    acl.aclrtGetSocName.restype = ctypes.c_char_p
    name = acl.aclrtGetSocName()
    return name.decode() if name else None


@cache
def current_chip() -> ChipSpec:
    """Facts of the chip in this machine, its forms as a probe found them if there was one.

    Raises NoChip, UnknownChip for one that the table does not know, or ProbeFileError.
    """
    name = soc_version()
    if name is None:
        raise NoChip(f"No Ascend chip found: {ACL_LIBRARY} cannot be loaded or names none. Run `ascend doctor`.")
    return probes.as_found(chips.find(name))


def device_count() -> int:
    """Chips visible to this process (after ASCEND_RT_VISIBLE_DEVICES)."""
    import torch_npu

    return int(torch_npu.npu.device_count())
