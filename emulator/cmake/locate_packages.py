"""Print the folders of torch and torch_npu as a CMake list; one sentence on stderr if either is unusable."""

import importlib.metadata
import importlib.util
import sys
from pathlib import Path

PACKAGES = ("torch", "torch_npu")  # which have one version
SUPPORTED = ("2.13.0", "2.14.0")


def locate(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        sys.exit(f"Install {package}=={SUPPORTED[0]} first: ascend-emulator is compiled against its headers.")
    return Path(spec.origin).parent


def check_versions() -> None:
    """Leave with a sentence if the two are not of one supported version."""
    versions = {package: importlib.metadata.version(package).split("+")[0] for package in PACKAGES}
    torch, torch_npu = versions.values()
    if torch != torch_npu:
        sys.exit(f"Install torch_npu=={torch}: it is {torch_npu}, torch is {torch}, and one is built for the other.")
    if torch not in SUPPORTED:
        sys.exit(
            f"Install torch=={SUPPORTED[0]} and torch_npu=={SUPPORTED[0]}: this release of ascend-emulator is compiled "
            f"against {' or '.join(SUPPORTED)}, and {torch} has another binary interface."
        )


if __name__ == "__main__":
    folders = [locate(package) for package in PACKAGES]
    check_versions()
    print(";".join(map(str, folders)))
