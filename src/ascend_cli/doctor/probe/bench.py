"""What a case runs with: tensors with canaries around them, comparisons with float64 references, and a clock."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from typing import Any

import torch

from ascend_cli.doctor.probe.case import WrongResult
from ascend_facts.chips import ChipSpec

CANARY_BYTES = 64
CANARY = 0xA5
BLOCK_BYTES = 512  # what torch_npu's allocator rounds to
DEVICE_TO_HOST = 2
RELATIVE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}


class Bench:
    """One case's tools. Not for several cases: it collects what this one measured."""

    def __init__(self, chip: ChipSpec, emulated: bool) -> None:
        self.chip = chip
        self.emulated = emulated
        self.device = torch.device("npu")
        self.half: torch.dtype = getattr(torch, chip.preferred_dtype)
        self.error: float | None = None
        self.time_us: float | None = None
        self.facts: dict[str, Any] = {}
        self.canaries = 0
        self._guarded: list[tuple[torch.Tensor, int]] = []
        self._random = torch.Generator().manual_seed(12)

    # ---------------------------------------------------------------- inputs

    def randn(self, *shape: int, dtype: torch.dtype | None = None, scale: float = 1.0) -> torch.Tensor:
        """On the host, the same in every run."""
        return (torch.randn(*shape, generator=self._random) * scale).to(dtype or self.half)

    def randint(self, low: int, high: int, shape: tuple[int, ...], dtype: torch.dtype = torch.int32) -> torch.Tensor:
        return torch.randint(low, high, shape, generator=self._random).to(dtype)

    def put(self, value: torch.Tensor) -> torch.Tensor:
        """A copy on the device."""
        return value.to(self.device)

    def inside(self, value: torch.Tensor) -> torch.Tensor:
        """A copy on the device with canaries before and after, which `finish` looks at."""
        size = value.numel() * value.element_size()
        raw = torch.full((2 * CANARY_BYTES + size,), CANARY, dtype=torch.uint8)
        raw[CANARY_BYTES : CANARY_BYTES + size] = value.contiguous().view(-1).view(torch.uint8)
        whole = raw.to(self.device)
        self._guarded.append((whole, size))
        return whole[CANARY_BYTES : CANARY_BYTES + size].view(value.dtype).view(value.shape)

    def launched(self, launch: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The result of an operator that makes its own output, with what lies behind it in its block looked at.

        The allocator gives the output the place of a block of the same size that was filled with canaries just before;
        where it takes another place, nothing is known of the surroundings.
        """
        size = launch().nbytes  # the first launch tells the size, and compiles what is to be compiled
        room = -(-(size + 32) // BLOCK_BYTES) * BLOCK_BYTES - 32
        block = torch.full((room,), CANARY, dtype=torch.uint8, device=self.device)
        torch.npu.synchronize()
        address = block.data_ptr()
        del block
        result = launch()
        torch.npu.synchronize()
        if result.data_ptr() == address and room > size and result.is_contiguous():
            self._check_raw(address + size, room - size)
        return result

    def _check_raw(self, address: int, size: int) -> None:
        host = (ctypes.c_uint8 * size)()
        copy = ctypes.CDLL("libascendcl.so").aclrtMemcpy
        status = copy(host, ctypes.c_size_t(size), ctypes.c_void_p(address), ctypes.c_size_t(size), DEVICE_TO_HOST)
        if status != 0:
            return  # the driver does not let it be read: no canary
        self.canaries += 1
        changed = [index for index, byte in enumerate(host) if byte != CANARY]
        if changed:
            raise WrongResult(f"{len(changed)} bytes behind the output were changed, the first at +{changed[0]}")

    # ---------------------------------------------------------------- results

    def same(self, found: torch.Tensor, reference: torch.Tensor, what: str = "elements") -> None:
        """Bit for bit, but for NaN, which equals itself."""
        found = found.cpu()
        if found.shape != reference.shape:
            raise WrongResult(f"shape {tuple(found.shape)} where {tuple(reference.shape)} is right")
        equal = found == reference
        if found.is_floating_point():
            equal |= found.isnan() & reference.isnan()
        self.error = max(self.error or 0.0, 0.0)
        if not bool(equal.all()):
            place = int((~equal).flatten().nonzero()[0])
            raise WrongResult(
                f"{int((~equal).sum())} of {equal.numel()} {what} differ, the first at {place}: "
                f"{found.flatten()[place].item()} where {reference.flatten()[place].item()} is right"
            )

    def close(self, found: torch.Tensor, reference: torch.Tensor, relative: float | None = None) -> None:
        """Within `relative` of the reference's largest value; by default what the result's type allows."""
        wide, exact = found.cpu().double(), reference.double()
        if wide.shape != exact.shape:
            raise WrongResult(f"shape {tuple(wide.shape)} where {tuple(exact.shape)} is right")
        largest = float(exact.abs().max()) or 1.0
        error = float((wide - exact).abs().max()) / largest if wide.numel() else 0.0
        bound = RELATIVE[found.dtype] if relative is None else relative
        self.error = max(self.error or 0.0, error if error == error else float("inf"))
        if not error <= bound:
            raise WrongResult(f"relative error {error:.2e} where {bound:.0e} is allowed")

    def finish(self) -> None:
        """Look at the canaries of every tensor that was put inside some. Raises WrongResult."""
        torch.npu.synchronize()
        for whole, size in self._guarded:
            raw = whole.cpu()
            self.canaries += 1
            for name, part in (("before", raw[:CANARY_BYTES]), ("behind", raw[CANARY_BYTES + size :])):
                changed = (part != CANARY).nonzero().flatten()
                if len(changed):
                    raise WrongResult(f"{len(changed)} bytes {name} the output were changed, at +{int(changed[0])}")

    # ---------------------------------------------------------------- time

    @property
    def times_count(self) -> bool:
        """Whether times say anything of a chip: those of an emulated one are its host's, unless they are modelled."""
        return not self.emulated or os.environ.get("ASCEND_EMULATOR_CLOCK") in ("both", "timing")

    def timed(self, launch: Callable[[], Any], repeats: int = 10) -> float:
        """Microseconds of the device for one launch: the shortest of three series, by events. Kept in `time_us`."""
        launch()
        best = float("inf")
        for _ in range(3):
            start, end = (torch.npu.Event(enable_timing=True) for _ in range(2))
            torch.npu.synchronize()
            start.record()
            for _ in range(repeats):
                launch()
            end.record()
            torch.npu.synchronize()
            best = min(best, start.elapsed_time(end) * 1e3 / repeats)
        self.time_us = best
        return best

    def waited(self, launch: Callable[[], Any], repeats: int = 100) -> float:
        """Microseconds of the host for one launch: how fast launches can be issued, the wait for the last included."""
        launch()
        torch.npu.synchronize()
        begin = time.perf_counter()
        for _ in range(repeats):
            launch()
        torch.npu.synchronize()
        return (time.perf_counter() - begin) * 1e6 / repeats
