"""Turn emulation on in this process: decide whether to, set what torch_npu reads, load the libraries."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from ascend_emulator.settings import Settings, SettingsError, switch

PACKAGE = Path(__file__).resolve().parent
CANN_HOME = PACKAGE / "cann"

# A later library may need an earlier one. torch_npu finds each by its SONAME once it is loaded, so no search path
# (LD_LIBRARY_PATH) is needed; libascend_ml is opened by the profiler.
LIBRARIES = (
    "libascendcl.so",
    "libemulator_math.so",
    "libacl_op_compiler.so",
    "libacl_tdt_channel.so",
    "libgraph.so",
    "libge_runner.so",
    "libascend_ml.so",
    "libhccl.so",
    "libhcomm.so",
    "libatb.so",
)
OPERATORS = "libopapi.so"  # linked with torch, so there is one for each series of torch: lib/torch-2.13
AFTER_OPERATORS = ("libnnopbase.so",)  # opened by graph capture; needs the operators

_loaded: list[ctypes.CDLL] = []


class EmulatorError(ImportError):
    """Emulation was asked for and cannot be; the message says what to do."""


def on_import(module: str) -> None:
    """Called by the import hook: the environment is set at "torch_npu", the libraries are loaded at "torch_npu._C"."""
    try:
        if not emulation_is_wanted(os.environ):
            return
        if module == "torch_npu":
            prepare_environment()
        elif not _loaded:
            load_libraries()
    except SettingsError as error:
        raise EmulatorError(f"ascend-emulator: {error}") from None


def emulation_is_wanted(environment: Mapping[str, str]) -> bool:
    """ASCEND_EMULATOR decides where it is set; otherwise chips are emulated where nothing of a real NPU is found."""
    wanted = switch(environment, "ASCEND_EMULATOR")
    return not real_npu_traces(environment) if wanted is None else wanted


def real_npu_traces(environment: Mapping[str, str]) -> list[str]:
    """What on this machine belongs to a real NPU: a driver, a CANN toolkit, or its settings in the environment."""
    paths = [Path("/dev/davinci_manager"), Path("/usr/local/Ascend/driver/version.info")]
    paths += [Path(folder) / "libascendcl.so" for folder in _library_path(environment)]
    traces = [str(path) for path in paths if path.exists()]
    return traces + [name for name in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME") if environment.get(name)]


def _library_path(environment: Mapping[str, str]) -> Iterator[str]:
    yield from filter(None, environment.get("LD_LIBRARY_PATH", "").split(":"))
    yield from ("/usr/local/Ascend/ascend-toolkit/latest/lib64", "/usr/local/Ascend/cann/lib64")


def prepare_environment() -> None:
    """Set what torch_npu, CANN's Python code and child processes read; tell the user once in a process tree."""
    settings = Settings.from_environment()
    os.environ.update(settings.to_environment())
    # torch_npu checks that these folders exist; pyACL (the module `acl`) is a component of CANN that programs import.
    os.environ["ASCEND_HOME_PATH"] = os.environ["ASCEND_TOOLKIT_HOME"] = str(CANN_HOME)
    os.environ["ASCEND_OPP_PATH"] = str(CANN_HOME / "opp")
    python_components = str(CANN_HOME / "python" / "site-packages")
    if python_components not in sys.path:
        sys.path.append(python_components)
    state = os.environ.setdefault("ASCEND_EMULATOR_STATE_DIR", f"/dev/shm/ascend-emulator-{os.getuid()}")
    with suppress(OSError):  # without the folder only npu-smi misses something: the processes
        Path(state).mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.environ.get("ASCEND_EMULATOR_ANNOUNCED"):
        os.environ["ASCEND_EMULATOR_ANNOUNCED"] = "1"
        print(notice(settings), file=sys.stderr, flush=True)


def notice(settings: Settings) -> str:
    chips = "1 chip" if settings.chip_count == 1 else f"{settings.chip_count} chips"
    return (
        f"ascend-emulator: {chips} {settings.spec.soc_version} ({settings.spec.products[0]}) emulated on this CPU; "
        "no figure below is a real NPU's. ASCEND_EMULATOR=0 turns it off."
    )


def library_folder() -> Path:
    """Where the emulated libraries are: this package's own, or the build folder that ASCEND_EMULATOR_LIB_DIR names."""
    override = os.environ.get("ASCEND_EMULATOR_LIB_DIR")
    return Path(override) if override else PACKAGE / "lib"


def loaded() -> list[ctypes.CDLL]:
    """The emulated libraries that this process has loaded; empty where it runs on real CANN or none."""
    return _loaded


def load_libraries() -> None:
    """Load the emulated CANN libraries so that torch_npu's are resolved to them. Raises EmulatorError."""
    folder = library_folder()
    for path in [
        *(folder / name for name in LIBRARIES),
        operators_of(folder),
        *(folder / name for name in AFTER_OPERATORS),
    ]:
        if not path.exists():
            if folder != PACKAGE / "lib":
                continue  # a build folder: targets not built yet are missed only if something asks for them
            raise EmulatorError(
                f"ascend-emulator: {path} is missing; reinstall with `pip install --force-reinstall ascend-emulator`"
                ", or set ASCEND_EMULATOR_LIB_DIR to a build folder."
            )
        try:
            _loaded.append(ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL))
        except OSError as error:
            raise EmulatorError(
                f"ascend-emulator: {path.name} does not load ({error}); "
                "rebuild ascend-emulator beside the installed torch."
            ) from None


def operators_of(folder: Path) -> Path:
    """The library of operators for the torch of this process. Raises EmulatorError where this build has none for it."""
    series = ".".join(sys.modules["torch"].__version__.split(".")[:2])
    built = {path.parent.name.removeprefix("torch-"): path for path in folder.glob(f"torch-*/{OPERATORS}")}
    if not built:  # a build folder is flat
        return folder / OPERATORS
    if series not in built:
        raise EmulatorError(
            f"ascend-emulator: it has operators for torch {', '.join(sorted(built))}, and torch {series} is installed: "
            "install one of those, or build ascend-emulator beside this torch."
        )
    return built[series]
