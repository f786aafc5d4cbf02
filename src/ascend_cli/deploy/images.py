"""Container images by chip and system: the tag grammar vX[rcN][-310p|-a3|-a5][-openeuler], releases and mirrors."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ascend_cli.deploy.names import check_image
from ascend_cli.errors import UsageError
from ascend_facts.chips import ChipSpec
from ascend_facts.versions import row

TAG = re.compile(r"v(?P<version>\d+\.\d+\.\d+(?:rc\d+)?)(?:-(?P<suffix>310p|a3|a5))?(?P<system>-openeuler)?")
GRAMMAR = "vX.Y.Z[rcN][-310p|-a3|-a5][-openeuler], such as v0.23.0-310p-openeuler"
OWN_PREFIX = "ascend-plugin"
INCUMBENT = "vllm-ascend"


def check_mirror(mirror: str) -> None:
    mirrors = catalogue()["mirrors"]
    if mirror not in mirrors:
        raise UsageError(f"unknown mirror {mirror!r}: choose one of {', '.join(mirrors)}")


@cache
def catalogue() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("images.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Image:
    """An image to run: its reference, and what is known of its release."""

    reference: str
    version: str | None = None  # of vLLM and vllm-ascend, None for an image of another name
    suffix: str = ""
    has_user_1000: bool = False
    needed_flags: tuple[str, ...] = ()
    is_known_release: bool = True

    @property
    def is_own(self) -> bool:
        """Whether it is built by `ascend deploy --target dockerfile`."""
        return self.reference.rsplit("/", 1)[-1].partition("@")[0].partition(":")[0] == OWN_PREFIX

    @property
    def is_local(self) -> bool:
        """Whether it is built on the machine that runs it, and must not be looked for in a registry."""
        return self.is_own and "/" not in self.reference


def own_reference(chip: ChipSpec) -> str:
    """The name under which this project's own image is built: `ascend deploy --target dockerfile` says how."""
    from importlib import metadata

    try:
        version = metadata.version(OWN_PREFIX)
    except metadata.PackageNotFoundError:
        version = "local"
    return f"{OWN_PREFIX}:{version.replace('+', '-')}{chip.image_suffix}"


def own_image(chip: ChipSpec) -> Image:
    """This project's own image: built locally, with user 1000 and no flags."""
    return Image(own_reference(chip), version=row().vllm, has_user_1000=True)


def find_image(
    chip: ChipSpec, tag: str = "", system: str = "ubuntu", mirror: str = "none", image: str = "", image_of: str = ""
) -> Image:
    """The image to run on a chip: this project's own, unless a tag, another image or vllm-ascend's is asked for.

    Raises UsageError for a tag that is none, or one built for another chip.
    """
    data = catalogue()
    check_mirror(mirror)
    if image:
        if tag or image_of:
            raise UsageError("--image names an image in full: leave --tag and --image-of out")
        return _custom(image)
    if not tag and image_of != INCUMBENT:
        return own_image(chip)
    if image_of not in ("", INCUMBENT):
        raise UsageError(f"--tag is of {INCUMBENT}'s images: leave --image-of {image_of} out")
    wanted = chip.image_suffix.lstrip("-")
    text = tag or f"v{data['default_release']}{chip.image_suffix}{'-openeuler' if system == 'openeuler' else ''}"
    matched = TAG.fullmatch(text)
    if matched is None:
        raise UsageError(f"{text!r} is not an image tag: the form is {GRAMMAR}")
    version, suffix = matched["version"], matched["suffix"] or ""
    if suffix != wanted:
        right = f"v{version}{chip.image_suffix}{matched['system'] or ''}"
        raise UsageError(f"{text} is not built for {chip.name}: use {right}")
    release = data["releases"].get(version)
    if release is not None and suffix not in release["suffixes"]:
        raise UsageError(
            f"release {version} has no image for {chip.name}: use v{data['default_release']}{chip.image_suffix}"
        )
    return Image(
        reference=f"{data['mirrors'][mirror]}:{text}",
        version=version,
        suffix=suffix,
        has_user_1000=suffix in (release or {}).get("has_user_1000", []),
        needed_flags=tuple(data["needed_flags"].get(suffix, [])),
        is_known_release=release is not None,
    )


def _custom(image: str) -> Image:
    """An image that the user names; ours is known to have uid 1000 and to need no flags."""
    own = Image(image).is_own
    parts = check_image(image)
    matched = TAG.fullmatch(parts["tag"] or "")
    if INCUMBENT in image and matched is None and parts["digest"] is None:
        raise UsageError(f"{image!r} has no known tag: the form is {GRAMMAR}")
    if matched is not None and not own:
        suffix = matched["suffix"] or ""
        release = catalogue()["releases"].get(matched["version"])
        has_user = suffix in (release or {}).get("has_user_1000", [])
        flags = tuple(catalogue()["needed_flags"].get(suffix, []))
        return Image(image, matched["version"], suffix, has_user, flags, release is not None)
    return Image(image, has_user_1000=own)


def cann_image(chip: ChipSpec, system: str = "ubuntu", mirror: str = "none") -> str:
    """The CANN base image of a chip, for building this project's own image."""
    check_mirror(mirror)
    cann = catalogue()["cann"]
    built_for = f"{cann['chips'][chip.family]}-{cann['systems'][system]}-py{cann['python']}"
    return f"{cann['mirrors'][mirror]}:{cann['version']}-{built_for}"


def proxy_image(mirror: str = "none") -> str:
    """The image of the proxy in front of a server, from the same mirror."""
    check_mirror(mirror)
    proxy = catalogue()["proxy"]
    return f"{proxy['mirrors'][mirror]}{proxy['image']}"


def monitoring_images(mirror: str = "none") -> tuple[str, str]:
    """Prometheus's and Grafana's images, from the same mirror."""
    check_mirror(mirror)
    found = catalogue()["monitoring"]
    return found["mirrors"][mirror] + found["prometheus"], found["mirrors"][mirror] + found["grafana"]
