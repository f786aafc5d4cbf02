"""Import hook, installed at each start of Python by ascend_emulator.pth: emulate when torch_npu is imported.

Kept to one class so that processes which never import torch_npu pay for a few file-system calls and nothing else.
"""

import sys


class TorchNpuHook:
    """A finder that finds nothing: it is told of each import, and prepares those of torch_npu."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        # torch_npu imports torch itself before its own extension module, so at "torch_npu._C" the libraries of torch
        # that ours link against are loaded, whichever of the two packages the program imported first.
        if name in ("torch_npu", "torch_npu._C"):
            from ascend_emulator import activation

            activation.on_import(name)


def install() -> None:
    if TorchNpuHook not in sys.meta_path:
        sys.meta_path.insert(0, TorchNpuHook)


install()
