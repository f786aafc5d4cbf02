"""Print the folders of torch and torch_npu as a CMake list; one sentence on stderr if either is unusable."""

import importlib.metadata
import importlib.util
import sys
from pathlib import Path

SUPPORTED = {"torch": "2.13.0", "torch_npu": "2.13.0"}


def locate(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        sys.exit(f"Install {package}=={SUPPORTED[package]} first: ascend-emulator is compiled against its headers.")
    version = importlib.metadata.version(package).split("+")[0]
    if version != SUPPORTED[package]:
        sys.exit(
            f"Install {package}=={SUPPORTED[package]}: this release of ascend-emulator is compiled against it, "
            f"and {package} {version} has another binary interface."
        )
    return Path(spec.origin).parent


if __name__ == "__main__":
    print(";".join(str(locate(package)) for package in SUPPORTED))
