"""Print the folders of torch and torch_npu and torch's series as a CMake list; one sentence on stderr if not usable."""

import importlib.metadata
import importlib.util
import sys
from pathlib import Path

# libopapi is compiled against torch's C++ headers; of torch_npu only CANN's C headers are read.
SERIES = ("2.13", "2.14")


def locate(package: str) -> tuple[Path, str]:
    """The folder of an installed package, and its series such as 2.13."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        sys.exit(f"Install {package} {' or '.join(SERIES)} first: ascend-emulator is compiled against its headers.")
    version = importlib.metadata.version(package)
    series = ".".join(version.split(".")[:2])
    if series not in SERIES:
        sys.exit(f"Install {package} {' or '.join(SERIES)}: ascend-emulator does not know the interface of {version}.")
    return Path(spec.origin).parent, series


if __name__ == "__main__":
    torch_folder, torch_series = locate("torch")
    torch_npu_folder, _ = locate("torch_npu")
    print(f"{torch_folder};{torch_npu_folder};{torch_series}")
