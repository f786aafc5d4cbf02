"""Versions of the driver, firmware, CANN and the Python packages, against the supported row."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from ascend_cli.doctor.advisories import open_advisories, parse_version
from ascend_cli.doctor.findings import Finding, error, note, ok, warning
from ascend_cli.errors import UsageError
from ascend_cli.hardware import Host
from ascend_facts import cann
from ascend_facts.versions import row

DRIVER = "/usr/local/Ascend/driver/version.info"
FIRMWARE = "/usr/local/Ascend/firmware/version.info"


@cache
def supported() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("supported.toml").read_text(encoding="utf-8"))


def check_driver(host: Host, emulated: bool) -> Iterator[Finding]:
    """The driver, whose files say its version, and the firmware under it."""
    version = _version(host, DRIVER)
    if version is None and emulated:
        yield note("driver", "no NPU driver here; processes get emulated chips", "figures of speed are the CPU's")
        return
    install = supported()["driver"]["install"]
    if version is None:
        yield error(
            "driver",
            f"no driver: {DRIVER} is missing",
            "without the driver no process reaches a chip",
            f"install driver and firmware from {install}, then reboot; in a container, mount /usr/local/Ascend/driver",
        )
        return
    oldest = supported()["driver"]["oldest"]
    if _older_line(version, oldest):
        yield error(
            "driver",
            f"driver {version} is older than {oldest}",
            "current CANN releases do not start on it",
            f"update it: {install}",
        )
    elif _older_line(version, recommended := supported()["driver"]["recommended"]):
        yield warning(
            "driver",
            f"driver {version} is of a line before {recommended}",
            "CANN 8 starts on it; CANN 9 may fail at aclInit",
            f"keep CANN 8.5, or update the driver: {install}",
        )
    else:
        yield ok("driver", f"driver {version}")
    firmware = _version(host, FIRMWARE)
    yield ok("firmware", f"firmware {firmware}") if firmware else note("firmware", "firmware version not recorded here")


def check_cann(host: Host, emulated: bool) -> Iterator[Finding]:
    """CANN's toolkit, found where its installer puts it or where ASCEND_HOME_PATH points."""
    if emulated and _version(host, DRIVER) is None:
        return
    found = find_cann(host)
    oldest, install = supported()["cann"]["oldest"], supported()["cann"]["install"]
    if found is None:
        yield error(
            "cann",
            f"no CANN toolkit under {' or '.join(cann.ROOTS)}, or where ASCEND_HOME_PATH points",
            "torch_npu loads libascendcl.so and others from it (`libhccl.so: cannot open shared object file`)",
            f"install toolkit, kernels and nnal for this chip from {install}, or a container: `ascend deploy MODEL`",
        )
    elif _older(found, oldest):
        yield error(
            "cann",
            f"CANN {found} is older than {oldest}",
            f"torch_npu {row().tested_torch} calls functions it lacks",
            f"update it: {install}",
        )
    else:
        yield ok("cann", f"CANN {found}")


def find_cann(host: Host) -> str | None:
    """The version of the toolkit in use (ASCEND_HOME_PATH), else of the newest that is installed; None if none is."""
    import os

    if host.is_this_machine and (home := os.environ.get("ASCEND_HOME_PATH")) and (version := _cann_in(host, home)):
        return version
    found = [version for home in _cann_homes(host) if (version := _cann_in(host, home))]
    return max(found, key=_order, default=None)


def _cann_homes(host: Host) -> Iterator[str]:
    for root in cann.ROOTS:
        if not root.startswith("/") and not host.is_this_machine:
            continue  # another machine's home is not known
        folder = host.path(root) if root.startswith("/") else Path(root).expanduser()
        for pattern in cann.HOMES:
            for home in sorted(folder.glob(pattern)):
                yield str(home) if host.is_this_machine else f"/{home.relative_to(host.root)}"


def _cann_in(host: Host, home: str) -> str | None:
    for file in cann.FILES:
        settings = {name.lower(): value for name, value in host.settings(f"{home}/{file}").items()}
        if version := settings.get("version"):
            return version
    return None


def _order(version: str) -> tuple[int, int, int, int]:
    try:
        return parse_version(version.lower())
    except UsageError:
        return (0, 0, 0, 0)  # one that cannot be read is taken only where there is no other


def check_packages(versions: dict[str, str | None] | None = None) -> Iterator[Finding]:
    """Python and the packages of the row, read from their metadata; nothing is imported."""
    supported_row = row()
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    if python in supported_row.pythons:
        yield ok("python", f"Python {python}")
    else:
        why = f"torch_npu {supported_row.tested_torch} and vLLM {supported_row.vllm} are supported together on those"
        pythons = " and ".join(supported_row.pythons)
        fix = f"python{supported_row.pythons[0]} scripts/setup.py"
        yield error("python", f"Python {python}, supported are {pythons}", why, fix)
    found = installed() if versions is None else versions
    for package in ("torch", "torch_npu"):
        yield _package(package, found.get(package), *supported_row.torch)
    yield _package("vllm", found.get("vllm"), supported_row.vllm)
    if not found.get("torchvision"):
        release = dict(zip(supported_row.torch, supported_row.torchvision, strict=True))
        torch = (found.get("torch") or supported_row.tested_torch).split("+")[0]
        fix = f"pip install --no-deps torchvision=={release.get(torch, supported_row.torchvision[0])}"
        why = "models with pictures do not start without it, text models do"
        yield note("torchvision", "torchvision is not installed", why, fix)
    plugin = found.get("ascend-plugin")
    yield ok("ascend-plugin", f"ascend-plugin {plugin}") if plugin else _package("ascend-plugin", None)
    if found.get("vllm-ascend"):
        why = "vLLM loads one platform plugin and stops when two offer themselves"
        yield error("vllm-ascend", "vllm-ascend is installed beside ascend-plugin", why, "pip uninstall vllm-ascend")
    if found.get("triton") and _is_310p():
        yield note(
            "triton",
            f"triton {found['triton']} is installed",
            "it has no 310P target; this plugin never imports it there",
        )


def _package(package: str, version: str | None, *wanted: str) -> Finding:
    if version is None:
        return error(
            package, f"{package} is not installed", "serving needs it", "make setup (or python3.11 scripts/setup.py)"
        )
    if wanted and version.split("+")[0] not in wanted:
        why = f"the row that is tested together has {wanted[0]}; their C++ interfaces differ between releases"
        fix = f"pip install {package}=={wanted[0]}"
        return error(package, f"{package} {version}, supported is {' or '.join(wanted)}", why, fix)
    return ok(package, f"{package} {version}")


def installed() -> dict[str, str | None]:
    names = ("torch", "torch_npu", "torchvision", "vllm", "ascend-plugin", "vllm-ascend", "triton")
    return {name: _installed(name) for name in names}


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _is_310p() -> bool:
    from ascend_cli.hardware import default_chip

    try:
        return default_chip().family == "310p"
    except UsageError:
        return False  # the chips' own findings say why it cannot be told


def check_advisories(version: str | None) -> Iterator[Finding]:
    """Advisories open against a vLLM version, from the data file of this release."""
    if version is None:
        return
    found = open_advisories(version)
    if not found:
        yield ok("advisories", f"no advisory known here is open for vLLM {version}")
    for advisory in found:
        fix = f"upgrade to vLLM {advisory.fixed}" if advisory.fixed else "no release has the fix yet"
        what = f"{advisory.id} ({advisory.severity}) is open in vLLM {version}: {advisory.about}"
        yield warning(
            "advisories", what, "anyone who reaches the port may use it", f"{fix}; until then: {advisory.mitigation}"
        )


def _version(host: Host, file: str) -> str | None:
    """The package's version; `Version` alone is the library's own number in some releases."""
    settings = {name.lower(): value for name, value in host.settings(file).items()}
    return settings.get("package_version") or settings.get("version")


def _older(version: str, oldest: str) -> bool:
    """Whether a version is below another; one that cannot be read is not judged."""
    try:
        return parse_version(version.lower()) < parse_version(oldest)
    except UsageError:
        return False


def _older_line(version: str, oldest: str) -> bool:
    """Whether a version is of an older line (major and minor): 25.0.rc1.1 is a package of the line 25.0."""
    try:
        return parse_version(version.lower())[:2] < parse_version(oldest)[:2]
    except UsageError:
        return False
