"""FRACTAL_NZ, the matrix layout that the cube of Ascend 310P reads: 16-column stripes, each stored row by row."""

from __future__ import annotations

import ctypes

import torch

from ascend_plugin.detection import ACL_LIBRARY

ND, FRACTAL_NZ = 2, 29  # aclFormat
NZ_ROWS = 16
NZ_COLUMNS = 16  # 32 bytes of fp16


def nz_from_nd(matrix: torch.Tensor) -> torch.Tensor:
    """Lay a [M, N] matrix (M and N multiples of 16) out as [1, N / 16, M, 16], the order of FRACTAL_NZ in memory."""
    rows, columns = matrix.shape
    return matrix.reshape(1, rows, columns // NZ_COLUMNS, NZ_COLUMNS).transpose(1, 2).contiguous()


def zero_memory(tensor: torch.Tensor) -> None:
    """Set a tensor in any format to zero, in the order of the current stream; for allocation time.

    torch's own zero_() compiles an operator for a tensor in a private format, so this asks the runtime.
    """
    import torch_npu

    size = ctypes.c_size_t(tensor.numel() * tensor.element_size())
    stream = ctypes.c_void_p(torch_npu.npu.current_stream().npu_stream)
    status = ctypes.CDLL(ACL_LIBRARY).aclrtMemsetAsync(ctypes.c_void_p(tensor.data_ptr()), size, 0, size, stream)
    if status != 0:
        raise RuntimeError(f"aclrtMemsetAsync of {size.value} bytes failed with {status}.")
