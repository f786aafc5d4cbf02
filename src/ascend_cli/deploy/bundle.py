"""Everything that a host without a network needs, in one folder: wheels, images, a list of the weights, checksums.

Made on a machine that has a network (and, for the image, docker); carried; `install.sh` in it checks every file before
it touches the host. What could not be had is named in bundle.json and on the terminal, never left out in silence.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ascend_cli.deploy.service import Service
from ascend_cli.errors import UsageError
from ascend_facts.versions import row

SCHEMA = "ascend.bundle/1"
SUMS = "SHA256SUMS"
FILE_OF_TARGET = {"docker": "start.sh", "compose": "compose.yaml", "k8s": "manifests.yaml", "systemd": "vllm.service"}
LOCK = "requirements/row.lock"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
CHUNK_BYTES = 1 << 20
# Every tag that a system with glibc 2.35 takes (Ubuntu 22.04, the older of the images): pip adds no older one itself.
PLATFORMS = (*(f"manylinux_2_{minor}" for minor in range(35, 16, -1)), "manylinux2014")


@dataclass
class Bundle:
    """A bundle being made: where, and what is still missing of it."""

    folder: Path
    repository: Path
    architecture: str
    say: Callable[[str], None]
    missing: list[str] = field(default_factory=list)

    def run(self, what: str, command: list[str], environment: Mapping[str, str] | None = None) -> bool:
        """A step whose output passes through; one that fails is named among what is missing."""
        self.say("+ " + shlex.join(command))
        try:
            done = subprocess.run(command, env=os.environ | (environment or {}), stdout=sys.stderr, check=False)
        except OSError as error:
            self.missing.append(f"{what}: {command[0]} cannot be started ({error.strerror})")
            return False
        if done.returncode:
            self.missing.append(f"{what}: `{shlex.join(command[:6])} ...` failed")
        return done.returncode == 0


def make(
    folder: Path,
    repository: Path,
    service: Service,
    target: str,
    text: str,
    architecture: str,
    say: Callable[[str], None],
) -> dict[str, object]:
    """Fill a new folder; its bundle.json comes back. Raises UsageError where it cannot be written."""
    if not (repository / LOCK).is_file():
        raise UsageError(f"{repository} has no {LOCK}: run this in the repository's root, or name it with --build")
    try:
        if folder.exists() and any(folder.iterdir()):
            raise UsageError(f"{folder} is not empty: name a new folder for the bundle")
        for part in ("wheels", "images"):
            (folder / part).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written ({error.strerror}): name another folder") from error
    bundle = Bundle(folder, repository, architecture, say)
    _write(folder / FILE_OF_TARGET[target], text)
    _write(folder / "install.sh", install_script(service, target))
    (folder / "install.sh").chmod(0o755)
    _wheels(bundle)
    if target != "systemd":
        _images(bundle, service)
    _weights(bundle, service)
    facts: dict[str, object] = {
        "schema": SCHEMA,
        "target": target,
        "chip": service.chip.name,
        "architecture": architecture,
        "model": service.model.name,
        "images": images_of(service) if target != "systemd" else [],
        "missing": bundle.missing,
    }
    _write(folder / "bundle.json", json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    _write(folder / SUMS, "".join(_sums(folder)))
    return facts


def images_of(service: Service) -> list[str]:
    found = [service.image.reference]
    if service.proxy:
        found.append(service.proxy_image)
    if service.monitoring:
        found += [service.monitoring.prometheus_image, service.monitoring.grafana_image]
    return found


def _wheels(bundle: Bundle) -> None:
    """The locked row, every file held to its hash; vLLM and this project as wheels of their own, of no platform."""
    python, wheels = [sys.executable, "-m", "pip"], str(bundle.folder / "wheels")
    platform = [] if bundle.architecture == os.uname().machine else _platform(bundle.architecture)
    download = [*python, "download", "--no-deps", "--dest", wheels]
    build = [*python, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels]
    torch = f"torch=={row().tested_torch}+cpu"
    for lock in (LOCK, f"requirements/torch_npu-{row().tested_torch}.lock"):
        bundle.run(lock, [*download, *platform, "--require-hashes", "-r", str(bundle.repository / lock)])
    # From pip's configured sources where they have it, else from PyTorch's own index, as set-up does.
    if not bundle.run(torch, [*download, *platform, torch]):
        bundle.missing.pop()
        bundle.run(torch, [*download, *platform, "--index-url", TORCH_INDEX, torch])
    vllm = [*build, "--require-hashes", "--no-binary", "vllm", "-r", str(bundle.repository / "requirements/vllm.lock")]
    empty = {"VLLM_TARGET_DEVICE": "empty", "VLLM_VERSION_OVERRIDE": row().vllm, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    if bundle.run("vllm", vllm, empty):
        _of_any_platform(bundle, "vllm")
    bundle.run("ascend-plugin", [*build, str(bundle.repository)])


def _of_any_platform(bundle: Bundle, name: str) -> None:
    """A wheel tagged with the machine that built it, though it holds no machine code: renamed for every machine."""
    for file in (bundle.folder / "wheels").glob(f"{name}-*.whl"):
        with zipfile.ZipFile(file) as wheel:
            compiled = [part for part in wheel.namelist() if part.endswith(".so")]
        if compiled:
            if bundle.architecture != os.uname().machine:
                bundle.missing.append(f"{name}: its wheel holds machine code of {os.uname().machine} ({compiled[0]})")
        elif not file.name.endswith("-none-any.whl"):
            tags = ["--python-tag", "py3", "--abi-tag", "none", "--platform-tag", "any", "--remove"]
            bundle.run(name, [sys.executable, "-m", "wheel", "tags", *tags, str(file)])


def _platform(architecture: str) -> list[str]:
    tags = [word for name in PLATFORMS for word in ("--platform", f"{name}_{architecture}")]
    return [*tags, "--python-version", f"{sys.version_info.major}.{sys.version_info.minor}", "--only-binary=:all:"]


def _images(bundle: Bundle, service: Service) -> None:
    """Each image as `docker save` writes it; one that is not here is pulled, unless it is built and never pulled."""
    for reference in images_of(service):
        file = bundle.folder / "images" / f"{re.sub(r'[^A-Za-z0-9.-]+', '_', reference)}.tar"
        if not _is_here(reference):
            if reference == service.image.reference and service.image.is_local:
                how = f"`ascend deploy --target dockerfile --chip {service.chip.name} --build .`"
                bundle.missing.append(f"image {reference}: build it with {how}")
                continue
            if not bundle.run(f"image {reference}", ["docker", "pull", reference]):
                continue
        bundle.run(f"image {reference}", ["docker", "save", "--output", str(file), reference])


def _is_here(reference: str) -> bool:
    try:
        done = subprocess.run(["docker", "image", "inspect", reference], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def _weights(bundle: Bundle, service: Service) -> None:
    """weights.sha256: every file of the model's folder, to be checked where the weights arrive by their own way."""
    folder = Path(service.model_argument)
    if service.model_dir is None or not folder.is_dir():
        bundle.missing.append(
            f"weights of {service.model.name}: they are not on this machine; "
            f"`ascend serve {service.model.hub_id or service.model.name} --download-only`, then give its folder"
        )
        _write(bundle.folder / "weights.sha256", "")
        return
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    bundle.say(f"hashing {len(files)} files of {folder}")
    lines = (_line(file, str(file.relative_to(folder))) for file in files)
    _write(bundle.folder / "weights.sha256", "".join(lines))


def _sums(folder: Path) -> list[str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != SUMS)
    return [_line(file, str(file.relative_to(folder))) for file in files]


def _line(file: Path, name: str) -> str:
    """A line of `sha256sum`, whose odd names are escaped as it does itself."""
    digest = hashlib.sha256()
    try:
        with file.open("rb") as content:
            while chunk := content.read(CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror}): see to its rights") from error
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n")
    mark = "\\" if escaped != name else ""
    return f"{mark}{digest.hexdigest()}  {escaped}\n"


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise UsageError(f"{file} cannot be written ({error.strerror}): make room, or name another folder") from error


def install_script(service: Service, target: str) -> str:
    """What the isolated host runs: checks first, then images or wheels, then the weights, then says how to start."""
    model = shlex.quote(service.model_argument)
    python = f"python{row().pythons[0]}"
    lines = [
        "#!/usr/bin/env bash",
        "# Installs this bundle on a host without a network: ./install.sh [FOLDER OF THE WEIGHTS]",
        "set -euo pipefail",
        'cd "$(dirname "$0")"',
        f'sha256sum --check --quiet {SUMS} || {{ echo "this bundle is damaged: carry it again" >&2; exit 1; }}',
        f"weights=${{1:-{model}}}",
        "if [ -s weights.sha256 ]; then",
        '  list="$PWD/weights.sha256"',
        '  (cd "$weights" && sha256sum --check --quiet "$list") ||',
        '    { echo "the weights in $weights are not those of the list: carry them again" >&2; exit 1; }',
        "fi",
    ]
    if target == "systemd":
        lines += [
            "venv=${VENV:-/opt/ascend-plugin}",
            f'${{PYTHON:-{python}}} -m venv "$venv"',
            '"$venv/bin/python" -m pip install --no-index --no-deps wheels/*.whl',
            'echo "installed in $venv; the unit\'s first lines say how to start it: vllm.service"',
        ]
    else:
        lines += [
            'for image in images/*.tar; do [ -e "$image" ] || continue; docker load --input "$image"; done',
            f'echo "ready: see {FILE_OF_TARGET[target]}; wheels/ is for a host without containers"',
        ]
    return "\n".join(lines) + "\n"
