"""Templates to text: pure functions of a Service, held by golden files."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ascend_cli.deploy import service as service_module
from ascend_cli.deploy.images import cann_image, catalogue
from ascend_cli.deploy.service import Service
from ascend_facts.chips import ChipSpec

TEMPLATES = Path(__file__).with_name("templates")
ALLOWED_PATHS = ("health", "v1/models", "v1/chat/completions", "v1/completions", "v1/embeddings")


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # shell, YAML and Dockerfiles: values are quoted by the filters below
    )
    environment.filters["sh"] = shlex.quote
    environment.filters["yaml"] = _yaml
    environment.filters["pairs"] = _pairs
    return environment


def _yaml(value: Any) -> str:
    """A scalar or list as YAML flow, which JSON is; plain words stay bare so that people can read them."""
    if (
        isinstance(value, str)
        and value.replace("-", "").replace("/", "").replace("_", "").isalnum()
        and not value.isdigit()
    ):
        return value if value.lower() not in ("true", "false", "yes", "no", "on", "off", "null") else json.dumps(value)
    return json.dumps(value, ensure_ascii=False)


def _pairs(arguments: tuple[str, ...] | list[str]) -> list[str]:
    """Command-line words in lines of one option each: `--flag value` together, quoted for the shell."""
    lines: list[str] = []
    for word in arguments:
        quoted = shlex.quote(word)
        previous_takes_it = bool(lines) and lines[-1].startswith("--") and " " not in lines[-1] and "=" not in lines[-1]
        if not word.startswith("--") and previous_takes_it:
            lines[-1] += f" {quoted}"
        else:
            lines.append(quoted)
    return lines


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values).rstrip() + "\n"


def render_docker(service: Service) -> str:
    template = "docker-open.sh.j2" if service.open_form else "docker.sh.j2"
    return _render(template, s=service, constants=service_module)


def render_compose(service: Service) -> str:
    return _render("compose.yaml.j2", s=service, constants=service_module, proxy=_proxy(service))


def render_kubernetes(service: Service, flavor: str, namespace: str, nodes: int, multi_node: str) -> str:
    """Manifests for one node, or for several with LeaderWorkerSet ("lws") or KubeRay ("ray")."""
    template = {"lws": "k8s-lws.yaml.j2", "ray": "k8s-ray.yaml.j2"}.get(multi_node, "k8s.yaml.j2")
    return _render(
        template,
        s=service,
        constants=service_module,
        proxy=_proxy(service),
        namespace=namespace,
        nodes=nodes,
        flavor=flavor,
        resource=service.chip.kubernetes_resources[flavor],
        labels=_node_labels(service.chip, flavor),
    )


def _node_labels(chip: ChipSpec, flavor: str) -> dict[str, str]:
    """MindCluster labels nodes by product; the other device plugins select by resource alone."""
    if flavor != "mindcluster":
        return {}
    return {"accelerator": "huawei-Ascend310P" if chip.family == "310p" else "huawei-Ascend910"}


def render_dockerfile(chip: ChipSpec, system: str) -> str:
    return _render("Dockerfile.j2", chip=chip, system=system, base=cann_image(chip, system), user=service_module.USER)


def _proxy(service: Service) -> dict[str, Any]:
    return {
        "image": catalogue()["proxy"]["image"],
        "paths": ALLOWED_PATHS,
        "upstream_port": service_module.CONTAINER_PORT,
    }
