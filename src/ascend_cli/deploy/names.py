"""Grammars of what a target takes as a name, a path or an image: checked here, so that nothing is rendered in vain."""

from __future__ import annotations

import re
import unicodedata

from ascend_cli.errors import UsageError

CONTAINER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}", re.ASCII)  # Docker; Compose takes the same for a service
DNS_LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?", re.ASCII)  # RFC 1035, which Kubernetes asks of a Service
LONGEST_KUBERNETES_NAME = 50  # `-api-key`, `-client` and others are appended, and 63 is the most
LONGEST_NAMESPACE = 63
# Distribution's reference grammar: [domain[:port]/]path[:tag][@digest].
IMAGE = re.compile(
    r"(?P<name>(?:(?:localhost|[a-zA-Z0-9-]+(?:\.[a-zA-Z0-9-]+)+|[a-zA-Z0-9-]+(?=:))(?::\d+)?/)?"
    r"[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)
RESERVED = ("proxy", "prometheus", "grafana")  # containers that compose files have of their own


def check_name(name: str, target: str, option: str = "--name") -> str:
    """A name for a container, a compose service or Kubernetes objects. Raises UsageError."""
    if target == "k8s":
        if DNS_LABEL.fullmatch(name) is None or len(name) > LONGEST_KUBERNETES_NAME:
            raise UsageError(
                f"{option} {name!r} is no name for Kubernetes: small letters, digits and dashes, a letter first, "
                f"at most {LONGEST_KUBERNETES_NAME}"
            )
    elif CONTAINER.fullmatch(name) is None:
        raise UsageError(
            f"{option} {name!r} is no name for a container: letters, digits, dots, dashes and underscores, at most 63"
        )
    if target == "compose" and name in RESERVED:
        raise UsageError(f"{option} {name!r} is the name of another container of the file: choose another")
    return name


def check_namespace(namespace: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", namespace, re.ASCII) or len(namespace) > LONGEST_NAMESPACE:
        raise UsageError(
            f"--namespace {namespace!r} is no namespace of Kubernetes: small letters, digits and dashes, at most 63"
        )
    return namespace


def check_image(image: str) -> re.Match[str]:
    """The parts of an image's reference. Raises UsageError."""
    found = IMAGE.fullmatch(image)
    if found is None:
        raise UsageError(f"--image {image!r} is no image: write name:tag, or name@sha256:...")
    return found


def check_text(option: str, text: str) -> str:
    """A free text that will stand in a script or manifest: no control character. Raises UsageError."""
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in text):
        raise UsageError(f"{option} {text!r} holds a line break or another control character: leave it out")
    return text


def check_mount(option: str, path: str) -> str:
    """A folder that Docker can mount, which reads a colon as the end of a path. Raises UsageError."""
    check_text(option, path)
    if ":" in path:
        raise UsageError(f"{option} {path!r} has a colon, at which docker ends a path: rename it, or link to it")
    return path
