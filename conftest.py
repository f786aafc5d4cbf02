"""The process of pytest itself computes on the CPU; what runs on chips runs in processes of its own.

torch loads torch_npu, and with it the emulator, when it is imported, and both write into the environment that tests'
processes inherit. So it is imported here, once, without.
"""

import pytest

with pytest.MonkeyPatch.context() as environment:
    environment.setenv("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    import torch  # noqa: F401
