"""A Service as text for its target: YAML by a serializer, shell and Dockerfile by templates that quote every value."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ascend_cli.deploy import compose, kubernetes, start, systemd
from ascend_cli.deploy import service as service_module
from ascend_cli.deploy.host_files import mounted_at
from ascend_cli.deploy.images import cann_image, own_reference
from ascend_cli.deploy.kubernetes import Cluster
from ascend_cli.deploy.service import Service
from ascend_facts.chips import ChipSpec
from ascend_facts.versions import row

TEMPLATES = Path(__file__).with_name("templates")
PIN = (
    "Images are named by tag. To pin what was tested: docker pull IMAGE, then "
    "docker inspect --format '{{index .RepoDigests 0}}' IMAGE prints the name@sha256:... for --image."
)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # shell and Dockerfiles: values are quoted by the filters below
    )
    environment.filters["sh"] = shlex.quote
    environment.filters["pairs"] = start.pairs
    environment.filters["mounted_at"] = mounted_at
    environment.filters["line"] = lambda text: " ".join(str(text).split())
    return environment


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values).rstrip() + "\n"


def render_docker(service: Service) -> str:
    template = "docker-open.sh.j2" if service.open_form else "docker.sh.j2"
    return _render(template, s=service, constants=service_module, start=start, build=build_line(service))


def render_compose(service: Service) -> str:
    return compose.render(service, [*_comments(service), *_before_compose(service)])


def render_kubernetes(service: Service, cluster: Cluster) -> str:
    """Manifests for one node, or for several with LeaderWorkerSet ("lws") or KubeRay ("ray")."""
    comments = _comments(service)
    if service.image.is_local:
        comments.append(f"Nodes pull images: push {service.image.reference} to your registry and name it with --image.")
    return kubernetes.render(service, cluster, comments)


def render_systemd(service: Service) -> str:
    """A unit for this machine, with the `ascend` that is here."""
    from ascend_cli.hardware.host import beside_python

    found = beside_python("ascend")
    return systemd.render(
        service, str(found or "/usr/local/bin/ascend"), [f"WARNING: {one}" for one in service.warnings]
    )


def build_line(service: Service) -> str:
    """How this project's own image is made, where it is what runs; empty otherwise."""
    if not service.image.is_local:
        return ""
    return f"ascend deploy --target dockerfile --chip {service.chip.name} --build ."


def _comments(service: Service) -> list[str]:
    lines = [f"WARNING: {warning}" for warning in service.warnings]
    if line := build_line(service):
        lines.append(f"The image, once, in the root of the ascend-plugin repository: {line}")
    return [*lines, PIN]


def _before_compose(service: Service) -> list[str]:
    file = shlex.quote(str(service.api_key_file))
    user = service.user or 0
    lines = [
        "Once, before `docker compose up -d`; without its key the server does not start:",
        f"  test -s {file} || (umask 077 && openssl rand -hex 32 > {file})",
        f"  sudo chown {user}:{user} {file}",
    ]
    if not service.model_dir:
        owner = f" -o {service.user} -g {service.user}" if service.user else ""
        lines.append(f"  sudo install -d -m 0750{owner} {service_module.HOST_CACHE}")
    return lines


def render_dockerfile(chip: ChipSpec, system: str, mirror: str = "none") -> str:
    return _render(
        "Dockerfile.j2",
        chip=chip,
        system=system,
        base=cann_image(chip, system, mirror),
        user=service_module.USER,
        reference=own_reference(chip),
        row=row(),
    )
