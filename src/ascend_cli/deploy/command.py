"""`ascend deploy`: the command line of the renderer."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ascend_cli import options
from ascend_cli.errors import BAD_ANSWER, OK, UsageError

if TYPE_CHECKING:
    from ascend_cli.deploy.service import Service
    from ascend_cli.hardware.npu_smi import Reading


class Target(StrEnum):
    docker = "docker"
    compose = "compose"
    k8s = "k8s"
    dockerfile = "dockerfile"
    systemd = "systemd"


class System(StrEnum):
    ubuntu = "ubuntu"
    openeuler = "openeuler"


class Runtime(StrEnum):
    docker = "docker"
    ascend = "ascend"


class Hub(StrEnum):
    hf = "hf"
    mirror = "hf-mirror"
    modelscope = "modelscope"


class ImageOf(StrEnum):
    own = "ascend-plugin"
    incumbent = "vllm-ascend"


class Flavour(StrEnum):
    mindcluster = "mindcluster"
    cce = "cce"
    hami = "hami"


class Architecture(StrEnum):
    x86_64 = "x86_64"
    aarch64 = "aarch64"


class MultiNode(StrEnum):
    lws = "lws"
    ray = "ray"


def deploy(
    model: options.OptionalModel = "",
    target: Annotated[Target, typer.Option(help="What to render.")] = Target.docker,
    chip: options.Chip = "",
    devices: Annotated[str, typer.Option(help="Chips by index: 0,1 or 0-3 (default: as few as the model needs).")] = "",
    tensor_parallel_size: Annotated[int | None, typer.Option("--tensor-parallel-size", "--tp", min=1)] = None,
    tag: Annotated[
        str, typer.Option(help="Tag of vllm-ascend's image, vX[rcN][-310p|-a3|-a5][-openeuler]; implies --image-of.")
    ] = "",
    image_of: Annotated[
        ImageOf | None, typer.Option(help="Whose image: this project's own, or vllm-ascend's to compare with.")
    ] = None,
    system: Annotated[System, typer.Option("--os", help="System of the image.")] = System.ubuntu,
    mirror: Annotated[str, typer.Option(help="Where images come from: none, daocloud, nju.")] = "none",
    image: Annotated[
        str, typer.Option(help="Another image, by name:tag or name@sha256:..., such as one in your registry.")
    ] = "",
    runtime: Annotated[
        Runtime, typer.Option(help="ascend: Ascend Docker Runtime mounts chips and driver.")
    ] = Runtime.docker,
    model_dir: Annotated[str, typer.Option(help="Folder with the weights on the server, if not MODEL itself.")] = "",
    mount: Annotated[str, typer.Option(help="Folder to mount instead of the model's own, such as /root/models.")] = "",
    hub: Annotated[Hub, typer.Option(help="Where weights come from if they are not local.")] = Hub.hf,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on the server's loopback.")] = 8000,
    name: Annotated[str, typer.Option(help="Name of the container or deployment.")] = "",
    served_model_name: Annotated[str, typer.Option(help="Name that clients use.")] = "",
    api_key_file: Annotated[
        Path | None, typer.Option(help="File with the API key (default: ./vllm-api-key, made once).")
    ] = None,
    max_model_len: Annotated[
        int | None, typer.Option(min=1, help="Longest request (default: what fits, up to 40,960).")
    ] = None,
    max_num_seqs: Annotated[int | None, typer.Option(min=1, help="Requests at once (default: 64).")] = None,
    shm_gib: Annotated[int, typer.Option("--shm-size", min=1, metavar="GIB", help="Shared memory.")] = 4,
    open_form: Annotated[
        bool, typer.Option("--open", help="Root, the host's network, no key: for a closed test network only.")
    ] = False,
    interactive: Annotated[
        bool, typer.Option("--interactive", help="A shell in the container, the server by hand.")
    ] = False,
    proxy: Annotated[
        bool | None, typer.Option("--proxy/--no-proxy", help="An allow-listing proxy in front (compose, k8s).")
    ] = None,
    monitoring: Annotated[
        bool, typer.Option("--monitoring", help="Prometheus, its rules and a Grafana dashboard (compose, k8s).")
    ] = False,
    flavor: Annotated[
        Flavour, typer.Option("--k8s-flavor", help="Device plugin of the cluster.")
    ] = Flavour.mindcluster,
    namespace: Annotated[str, typer.Option(help="Kubernetes namespace (default: default).")] = "",
    nodes: Annotated[int, typer.Option(min=1, max=64, help="Kubernetes nodes for one model.")] = 1,
    multi_node: Annotated[MultiNode, typer.Option(help="How several nodes are joined.")] = MultiNode.lws,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Kubernetes scheduler ('' is the cluster's own; default: volcano for mindcluster)."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file instead of the terminal.")
    ] = None,
    check_port: Annotated[
        bool, typer.Option("--check-port", help="Refuse if the port is taken on this machine.")
    ] = False,
    build: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The repository: --target dockerfile builds the image from it."),
    ] = None,
    offline_bundle: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Wheels, images, weights list and checksums for a host without a network."),
    ] = None,
    architecture: Annotated[
        Architecture | None, typer.Option("--arch", help="With --offline-bundle: the host's, if not this machine's.")
    ] = None,
    json: options.Json = False,
    extra: Annotated[list[str] | None, typer.Argument(metavar="-- FLAGS", help="More flags for vllm serve.")] = None,
) -> int:
    """Render a docker command, a compose file, Kubernetes manifests, a systemd unit or a Dockerfile that serves MODEL.

    Safe by default: loopback only, no host network, not root where the image allows it, a key from a file, a
    read-only container without capabilities, a health check, offline when the weights are local.
    """
    from ascend_cli import net
    from ascend_cli.deploy import host_files, render, service
    from ascend_cli.deploy.images import check_mirror, find_image, monitoring_images, own_reference, proxy_image
    from ascend_cli.deploy.kubernetes import Cluster
    from ascend_cli.deploy.names import check_name, check_namespace
    from ascend_cli.hardware import chip_named
    from ascend_cli.registry.cards import find_model

    check_mirror(mirror)
    spec = chip_named(chip)
    if target is Target.dockerfile:
        text = render.render_dockerfile(spec, system.value, mirror)
        if build is not None:
            return _build(text, own_reference(spec), build)
        return _write(text, output, json, "dockerfile", {"image": own_reference(spec)})
    if build is not None and offline_bundle is None:
        raise UsageError("--build is of --target dockerfile: build the image first, then deploy with it")
    if architecture is not None and offline_bundle is None:
        raise UsageError("--arch is of --offline-bundle: elsewhere the image's architecture is the host's")
    if not model:
        raise UsageError("name a model: a folder with config.json, a hub id, or one of `ascend plan --list`")
    if open_form and target is not Target.docker:
        raise UsageError("--open is a form of --target docker only: compose files and manifests are always closed")
    if interactive and target is not Target.docker:
        raise UsageError("--interactive is a form of --target docker only")
    if target is not Target.k8s:
        for option, is_given in (("--nodes", nodes > 1), ("--namespace", namespace), ("--scheduler", scheduler)):
            if is_given:
                raise UsageError(f"{option} is of --target k8s only")
    if scheduler:
        check_name(scheduler, "k8s", "--scheduler")
    cluster = Cluster(
        flavor=flavor.value,
        namespace=check_namespace(namespace or "default"),
        nodes=nodes,
        multi_node=multi_node.value if nodes > 1 else "",
        # MindCluster's device plugin fails the pods of other schedulers, unless it was installed without Volcano.
        scheduler=("volcano" if flavor is Flavour.mindcluster else "") if scheduler is None else scheduler,
    )
    if check_port and net.port_is_taken(port):
        raise UsageError(f"port {port} is taken on this machine: choose another with --port")
    chosen = service.Options(
        target=target.value,
        nodes=nodes,
        proxy_image=proxy_image(mirror),
        devices=devices,
        runtime=runtime.value,
        model_dir=model_dir,
        mount=mount,
        hub=hub.value,
        port=port,
        name=name,
        served_model_name=served_model_name,
        api_key_file=api_key_file,
        tensor_parallel_size=tensor_parallel_size,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        shm_gib=shm_gib,
        open_form=open_form,
        interactive=interactive,
        proxy=(target in (Target.compose, Target.k8s)) if proxy is None else proxy,
        root_complex=system.value if host_files.is_root_complex(chip) else "",
        monitoring=service.Monitoring(*monitoring_images(mirror)) if monitoring else service.Monitoring(),
        extra=tuple(extra or ()),
    )
    if monitoring and target not in (Target.compose, Target.k8s):
        raise UsageError("--monitoring is of --target compose and k8s: elsewhere `ascend top` shows chips and server")
    if chosen.proxy and target not in (Target.compose, Target.k8s):
        raise UsageError("--proxy needs two containers: use --target compose or k8s")
    found = find_image(spec, tag, system.value, mirror, image, image_of.value if image_of else "")
    built = service.build_service(find_model(model), spec, found, chosen, None if chip else _reading())
    if target is Target.docker:
        text = render.render_docker(built)
    elif target is Target.compose:
        text = render.render_compose(built)
    elif target is Target.systemd:
        text = render.render_systemd(built)
    else:
        text = render.render_kubernetes(built, cluster)
    if offline_bundle is not None:
        if open_form or interactive:
            raise UsageError("--offline-bundle is for a service: leave --open and --interactive out")
        return _bundle(offline_bundle, build or Path(), built, target.value, text, architecture, json)
    facts: dict[str, object] = {
        "image": found.reference,
        "chip": spec.name,
        "devices": built.devices,
        "warnings": built.warnings,
    }
    return _write(text, output, json, target.value, facts)


def _build(dockerfile: str, reference: str, repository: Path) -> int:
    """Build this project's own image with docker, whose output passes through."""
    import subprocess

    from ascend_cli.output import notice

    if not (repository / "requirements/row.lock").is_file():
        raise UsageError(f"--build {repository} is not the root of the ascend-plugin repository: name that folder")
    command = ["docker", "build", "-t", reference, "-f", "-", str(repository)]
    notice("+ " + " ".join(command))
    try:
        done = subprocess.run(command, input=dockerfile.encode(), check=False)
    except OSError as error:
        raise UsageError(f"docker cannot be started ({error.strerror}): install it, or build what -o writes") from error
    return OK if done.returncode == 0 else BAD_ANSWER


def _bundle(
    folder: Path,
    repository: Path,
    built: Service,
    target: str,
    text: str,
    architecture: Architecture | None,
    json: bool,
) -> int:
    """Make a bundle; what is missing of it makes the answer bad."""
    import os

    from ascend_cli.deploy import bundle
    from ascend_cli.output import emit_json, notice

    machine = architecture.value if architecture else os.uname().machine
    facts = bundle.make(folder, repository, built, target, text, machine, notice)
    missing = facts["missing"]
    assert isinstance(missing, list)
    if json:
        emit_json(facts)
    else:
        print(folder)
    for one in missing:
        notice(f"ascend deploy: missing: {one}")
    return BAD_ANSWER if missing else OK


def _reading() -> Reading | None:
    """What npu-smi shows here, None where there is none: the service is then for another machine."""
    from ascend_cli.hardware.host import reading_here
    from ascend_cli.hardware.npu_smi import NpuSmiError

    try:
        return reading_here()
    except NpuSmiError:
        return None


def _write(text: str, output: Path | None, json: bool, target: str, facts: dict[str, object]) -> int:
    from ascend_cli.output import emit_json, write_text

    if output is not None:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{output} cannot be written ({error.strerror}): choose another --output") from error
    if json:
        emit_json({"schema": "ascend.deploy/1", "target": target, **facts, "text": text})
    elif output is None:
        write_text(text)
    return OK
