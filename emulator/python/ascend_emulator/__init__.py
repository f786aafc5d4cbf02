"""Ascend chips emulated at CANN's C ABI, under the unmodified torch_npu wheel.

With this package installed and no CANN on the machine, `import torch_npu` finds emulated chips; nothing needs to be
imported from here. `emulate()` and `run()` choose the chip for a subprocess, `stats()` tells what this process did.
"""

TYPE_CHECKING = False  # importing typing for it would cost every start of Python ten milliseconds
if TYPE_CHECKING:
    from ascend_emulator.counters import reset_stats, stats
    from ascend_emulator.launcher import emulate, run
    from ascend_emulator.settings import Settings, SettingsError

__all__ = ["Settings", "SettingsError", "emulate", "reset_stats", "run", "stats"]

# Looked up on first use: every Python process of the environment imports this module at start-up (see _hook.py).
_HOMES = {
    "Settings": "settings",
    "SettingsError": "settings",
    "emulate": "launcher",
    "run": "launcher",
    "stats": "counters",
    "reset_stats": "counters",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("ascend-emulator")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
