"""The process of pytest itself computes on the CPU; what runs on chips runs in processes of its own.

torch loads torch_npu, and with it the emulator, when it is imported, and both write into the environment that tests'
processes inherit. So it is imported here, once, without.

Where the emulator is not installed, as beside CANN, its pytest plugin is taken from this checkout: it is plain Python,
and `pytest --hardware` needs nothing of the emulator but that.
"""

import importlib
import importlib.util
import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parent

# The same examples in every run, no folder of them beside the tests, and no limit of time, which others' load breaks.
settings.register_profile(
    "fixed", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fixed")

# A shell without job control starts what it puts into the background with Ctrl-C ignored, and every process that a
# test starts would inherit that. A process that ends on Ctrl-C is part of what is tested.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

with pytest.MonkeyPatch.context() as environment:
    environment.setenv("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    import torch  # noqa: F401


def _take_plugin_from_checkout() -> None:
    """Make `ascend_emulator` importable here and in the processes that tests start, without its libraries."""
    folder = str(ROOT / "emulator" / "python")
    sys.path.insert(0, folder)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))
    os.environ.setdefault("ASCEND_EMULATOR", "0")  # no libraries: nothing can be emulated
    sys.modules["ascend_emulator.chips"] = importlib.import_module("ascend_facts.chips")


pytest_plugins = ["conformance.on_hardware"]
if importlib.util.find_spec("ascend_emulator") is None:
    _take_plugin_from_checkout()
    pytest_plugins.append("ascend_emulator.pytest_plugin")
