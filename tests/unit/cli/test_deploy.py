"""`ascend deploy`: golden files of what is rendered, the schemas it must satisfy, and the safety that is its default.

Regenerate the golden files, then read the difference: `UPDATE_GOLDEN=1 python -m pytest tests/unit/cli/test_deploy.py`.
"""

from __future__ import annotations

import http.server
import json
import os
import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import compose_spec
import kubernetes_validate
import pytest
import yaml

from ascend_cli.deploy.images import cann_image, find_image
from ascend_cli.deploy.service import parse_devices
from ascend_facts.chips import chips, find

from .conftest import Ascend

GOLDEN = Path(__file__).with_name("golden")
KUBERNETES = "1.30"

OPERATOR = [
    "qwen3-32b",
    "--open",
    "--model-dir",
    "/root/models/qwen3-32B",
    "--mount",
    "/root/models",
    "--devices",
    "0-3",
]
OPERATOR += ["--tag", "v0.18.0rc1-310p-openeuler", "--served-model-name", "qwen3-32b"]
CASES: dict[str, list[str]] = {
    "docker-safe.sh": ["qwen3-8b", "--model-dir", "/data/qwen3-8b"],
    "docker-incumbent.sh": ["qwen3-8b", "--image-of", "vllm-ascend", "--model-dir", "/data/qwen3-8b"],
    "docker-hub-mirror.sh": [
        "qwen3-8b",
        "--image-of",
        "vllm-ascend",
        "--hub",
        "hf-mirror",
        "--mirror",
        "daocloud",
        "--os",
        "openeuler",
    ],
    "docker-ascend-runtime.sh": ["qwen3-32b", "--runtime", "ascend", "--devices", "0-3", "--hub", "modelscope"],
    "docker-a2-root.sh": [
        "qwen3-32b",
        "--chip",
        "910B3",
        "--image-of",
        "vllm-ascend",
        "--model-dir",
        "/data/qwen3-32b",
    ],
    "docker-interactive.sh": ["qwen3-8b", "--interactive", "--model-dir", "/data/qwen3-8b"],
    "docker-open-detached.sh": [*OPERATOR, "--hub", "modelscope"],
    "docker-open-interactive.sh": [*OPERATOR, "--interactive"],
    "compose-proxy.yaml": ["qwen3-32b", "--target", "compose", "--devices", "0-3", "--model-dir", "/data/qwen3-32b"],
    "compose-plain.yaml": ["qwen3-8b", "--target", "compose", "--no-proxy", "--runtime", "ascend"],
    "k8s-mindcluster.yaml": ["qwen3-32b", "--target", "k8s", "--devices", "0-3", "--model-dir", "/data/qwen3-32b"],
    "k8s-mindcluster-runtime.yaml": [
        "qwen3-8b",
        "--target",
        "k8s",
        "--runtime",
        "ascend",
        "--model-dir",
        "/data/qwen3-8b",
    ],
    "k8s-cce.yaml": ["qwen3-8b", "--target", "k8s", "--k8s-flavor", "cce", "--no-proxy"],
    "k8s-hami.yaml": ["qwen3-8b", "--target", "k8s", "--k8s-flavor", "hami", "--chip", "910B4"],
    "k8s-lws.yaml": ["qwen3-235b-a22b", "--target", "k8s", "--chip", "910B3", "--devices", "0-7", "--nodes", "2"],
    "k8s-ray.yaml": [
        "qwen3-235b-a22b",
        "--target",
        "k8s",
        "--chip",
        "910B3",
        "--devices",
        "0-7",
        "--nodes",
        "2",
        "--multi-node",
        "ray",
    ],
    "Dockerfile-310p": ["--target", "dockerfile", "--chip", "310P3"],
    "Dockerfile-a3-openeuler": ["--target", "dockerfile", "--chip", "910_9391", "--os", "openeuler"],
}


def rendered(ascend: Ascend, name: str) -> str:
    arguments = CASES[name]
    chip = [] if "--chip" in arguments else ["--chip", "310P3"]
    answer = ascend("deploy", *arguments, *chip)
    assert answer.code == 0, answer.err
    return answer.out


@pytest.mark.parametrize("name", list(CASES))
def test_golden(ascend: Ascend, name: str) -> None:
    own = f"ascend-plugin:{version('ascend-plugin')}"
    text, file = rendered(ascend, name).replace(own, "ascend-plugin:VERSION"), GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.mkdir(exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()


def named(prefix: str) -> list[str]:
    return [name for name in CASES if name.startswith(prefix)]


def docker_words(text: str) -> list[str]:
    """The words of the `docker run` command in a script, as the shell would split them."""
    start = text.index("docker run")
    command = text[start:].split("\n\n")[0].replace("\\\n", " ")
    return shlex.split(command.replace('"$(realpath vllm-api-key)"', "/keys/vllm-api-key"))


# ------------------------------------------------------------------------------------------------ schemas


@pytest.mark.parametrize("name", named("compose"))
def test_compose_files_obey_the_compose_specification(ascend: Ascend, name: str) -> None:
    compose = compose_spec.PyCompose.from_yaml(rendered(ascend, name))
    compose.validate()  # networks, volumes, secrets and configs that services use must be there
    assert compose.to_spec().services


def test_the_compose_validator_can_fail() -> None:
    with pytest.raises(Exception, match="typo"):
        compose_spec.PyCompose.from_yaml("services: {web: {image: a, typo_option: 1}}").to_spec()


@pytest.mark.skipif(
    shutil.which("docker") is None
    or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode != 0,
    reason="docker with its compose plugin is not installed",
)
@pytest.mark.parametrize("name", named("compose"))
def test_docker_compose_reads_them(ascend: Ascend, name: str, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(rendered(ascend, name))
    (tmp_path / "vllm-api-key").write_text("key")
    done = subprocess.run(["docker", "compose", "config"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class FakeDaemon(http.server.BaseHTTPRequestHandler):
    """Just enough of Docker's API for its command line to hand over the container that it would create."""

    created: ClassVar[list[dict[str, Any]]] = []

    def do_HEAD(self) -> None:
        self._answer(200, b"")

    def do_GET(self) -> None:
        self._answer(200, b"{}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if "/containers/create" in self.path:
            self.created.append(json.loads(body))
        self._answer(500, b'{"message": "this daemon only listens"}')

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        for name, value in (("Api-Version", "1.44"), ("Ostype", "linux"), ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        return


@pytest.fixture
def docker_creates() -> Iterator[Callable[[list[str]], dict[str, Any]]]:
    """Run a `docker run` command and return the container that Docker's own command line makes of it."""
    if shutil.which("docker") is None:
        pytest.skip("docker's command line is not installed")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeDaemon)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        "PATH": os.environ["PATH"],
        "DOCKER_HOST": f"tcp://127.0.0.1:{server.server_address[1]}",
        "HOME": "/nonexistent",
    }

    def create(words: list[str]) -> dict[str, Any]:
        FakeDaemon.created.clear()
        words = ["-i" if word == "-it" else word for word in words]  # a terminal is refused before anything is parsed
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert FakeDaemon.created, done.stderr
        return FakeDaemon.created[0]

    yield create
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", named("docker"))
def test_docker_understands_the_command(
    ascend: Ascend, name: str, docker_creates: Callable[[list[str]], dict[str, Any]]
) -> None:
    container = docker_creates(docker_words(rendered(ascend, name)))
    host = container["HostConfig"]
    is_open = "open" in name
    assert host["Privileged"] is False
    assert host["ReadonlyRootfs"] is not is_open
    assert host["CapDrop"] == (None if is_open else ["ALL"])
    assert host["NetworkMode"] == ("host" if is_open else host["NetworkMode"])
    if not is_open:
        assert host["NetworkMode"] != "host"
        assert [binding["HostIp"] for bindings in host["PortBindings"].values() for binding in bindings] == [
            "127.0.0.1"
        ]
        assert container["Healthcheck"]["Test"][0] == "CMD-SHELL"
    if "interactive" not in name:
        assert "serve" in container["Cmd"]
    if "ascend-runtime" in name:
        assert (host["Runtime"], "ASCEND_VISIBLE_DEVICES=0-3" in container["Env"]) == ("ascend", True)
    else:
        assert "/dev/davinci_manager" in [device["PathOnHost"] for device in host["Devices"]]


def manifests(ascend: Ascend, name: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(rendered(ascend, name)) if document]


def pod_specs(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pods of a Deployment, LeaderWorkerSet or RayCluster."""
    found = []
    for document in documents:
        spec = document.get("spec", {})
        if document["kind"] == "Deployment":
            found.append(spec["template"])
        elif document["kind"] == "LeaderWorkerSet":
            found += [spec["leaderWorkerTemplate"][name] for name in ("leaderTemplate", "workerTemplate")]
        elif document["kind"] == "RayCluster":
            found += [spec["headGroupSpec"]["template"], *(group["template"] for group in spec["workerGroupSpecs"])]
    return found


@pytest.mark.parametrize("name", named("k8s"))
def test_manifests_obey_the_kubernetes_schemas(ascend: Ascend, name: str) -> None:
    documents = manifests(ascend, name)
    for document in documents:
        if document["apiVersion"] in ("v1", "apps/v1", "networking.k8s.io/v1"):
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
    pods = pod_specs(documents)
    assert pods
    for number, pod in enumerate(pods):  # the custom resources hold pods: those have a schema
        metadata = pod.get("metadata", {}) | {"name": f"pod-{number}"}
        kubernetes_validate.validate(
            {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod["spec"]}, KUBERNETES, strict=True
        )


@pytest.mark.parametrize("name", named("k8s"))
def test_manifests_hang_together(ascend: Ascend, name: str) -> None:
    """Volumes are mounted and mounts have volumes; claims and config maps exist; the Service reaches a named port."""
    documents = manifests(ascend, name)
    names = {(document["kind"], document["metadata"]["name"]) for document in documents}
    service = next(document for document in documents if document["kind"] == "Service")
    ports = set()
    for pod in pod_specs(documents):
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        mounts = {mount["name"] for container in pod["spec"]["containers"] for mount in container["volumeMounts"]}
        assert mounts == set(volumes)
        for volume in volumes.values():
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in names
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in names
        ports |= {port["name"] for container in pod["spec"]["containers"] for port in container.get("ports", [])}
    assert service["spec"]["ports"][0]["targetPort"] in ports


# ------------------------------------------------------------------------------------------------ safety


@pytest.mark.parametrize("name", [name for name in named("docker") if "open" not in name])
def test_docker_is_safe_by_default(ascend: Ascend, name: str) -> None:
    text = rendered(ascend, name)
    words = docker_words(text)
    assert words[words.index("--publish") + 1].startswith("127.0.0.1:")
    assert words[words.index("--cap-drop") + 1] == "ALL"
    assert words[words.index("--security-opt") + 1] == "no-new-privileges"
    assert {"--read-only", "--health-cmd", "--init"} <= set(words)
    assert not {"--privileged", "--network", "--network=host"} & set(words)
    assert "--api-key" not in words, "a key on the command line shows in `ps`"
    assert "--trust-remote-code" not in words
    volumes = [words[index + 1] for index, word in enumerate(words) if word == "--volume"]
    writable = [volume for volume in volumes if not volume.endswith(":ro")]
    assert writable == [volume for volume in volumes if volume == "/var/lib/vllm-cache:/cache"]
    assert "--max-model-len" in text


def test_the_image_decides_whether_root_is_needed(ascend: Ascend) -> None:
    assert "--user 1000:1000" in rendered(ascend, "docker-safe.sh")
    as_root = rendered(ascend, "docker-a2-root.sh")
    assert "--user" not in as_root
    assert "runs as root" in as_root
    assert "--group-add 1000" in as_root, "root without capabilities opens device nodes by their group"


def test_local_weights_are_served_offline(ascend: Ascend) -> None:
    assert "HF_HUB_OFFLINE=1" in rendered(ascend, "docker-safe.sh")
    mirrored = rendered(ascend, "docker-hub-mirror.sh")
    assert "HF_ENDPOINT=https://hf-mirror.com" in mirrored
    assert "HF_HUB_OFFLINE" not in mirrored
    assert "VLLM_USE_MODELSCOPE=True" in rendered(ascend, "docker-ascend-runtime.sh")
    assert "HF_HUB_OFFLINE" in rendered(ascend, "docker-a2-root.sh")


def test_own_image_needs_no_flags_for_the_chip(ascend: Ascend) -> None:
    assert "--enforce-eager" in rendered(ascend, "docker-incumbent.sh")
    own = rendered(ascend, "docker-safe.sh")
    assert "--enforce-eager" not in own
    assert "--pull never" in own, "a registry's image of the same name is another one"


def test_the_proxy_alone_is_reachable(ascend: Ascend) -> None:
    services = yaml.safe_load(rendered(ascend, "compose-proxy.yaml"))["services"]
    assert "ports" not in services["vllm-ascend"]
    assert services["proxy"]["ports"] == ["127.0.0.1:8000:8080"]
    assert services["vllm-ascend"]["networks"] == ["inside"], "weights are local: the server needs no way out"


@pytest.mark.parametrize("name", named("k8s"))
def test_pods_are_confined(ascend: Ascend, name: str) -> None:
    documents = manifests(ascend, name)
    assert any(document["kind"] == "NetworkPolicy" for document in documents)
    for pod in pod_specs(documents):
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["spec"]["containers"]:
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
        server = pod["spec"]["containers"][0]
        resource = next(name for name in server["resources"]["limits"] if name.startswith("huawei.com/"))
        assert server["resources"]["limits"][resource] == server["resources"]["requests"][resource]


def test_device_plugins_name_chips_differently(ascend: Ascend) -> None:
    assert "huawei.com/Ascend310P: 4" in rendered(ascend, "k8s-mindcluster.yaml")
    assert "huawei.com/ascend-310: 1" in rendered(ascend, "k8s-cce.yaml")
    assert "huawei.com/Ascend910B4: " in rendered(ascend, "k8s-hami.yaml"), (
        "HAMi counts each chip of 910B by its own name"
    )


# -------------------------------------------------------------------------- published Atlas 300I Duo figures

PUBLISHED_DETACHED = """
docker run -d --name vllm-ascend --network=host --shm-size=10g
--device /dev/davinci0 --device /dev/davinci1 --device /dev/davinci2 --device /dev/davinci3
--device /dev/davinci_manager --device /dev/devmm_svm --device /dev/hisi_hdc
-e VLLM_USE_MODELSCOPE=True
-v /usr/local/dcmi:/usr/local/dcmi -v /usr/local/bin/npu-smi:/usr/local/bin/npu-smi
-v /usr/local/Ascend/driver/lib64/:/usr/local/Ascend/driver/lib64/
-v /usr/local/Ascend/driver/version.info:/usr/local/Ascend/driver/version.info
-v /etc/ascend_install.info:/etc/ascend_install.info -v /root/.cache:/root/.cache -v /root/models:/root/models
quay.io/ascend/vllm-ascend:v0.18.0rc1-310p-openeuler vllm serve --enforce-eager --dtype float16
--model /root/models/qwen3-32B --served-model-name qwen3-32b --enable-auto-tool-choice --tool-call-parser hermes
--tensor-parallel-size 4
"""


def test_the_published_detached_command_is_rendered(ascend: Ascend) -> None:
    """Word for word, but for the reasoning parser that the published figures does without."""
    words = docker_words(rendered(ascend, "docker-open-detached.sh"))
    start = words.index("--reasoning-parser")
    assert words[:start] + words[start + 2 :] == shlex.split(PUBLISHED_DETACHED)


def test_the_published_interactive_command_is_rendered(ascend: Ascend) -> None:
    text = rendered(ascend, "docker-open-interactive.sh")
    wanted = (
        PUBLISHED_DETACHED.split("vllm serve")[0]
        .replace("run -d", "run --rm")
        .replace("-e VLLM_USE_MODELSCOPE=True", "")
    )
    words = shlex.split(wanted)
    words[-1:] = ["-it", words[-1], "bash"]
    assert docker_words(text) == words
    assert "vllm serve" in text.split("# then, inside:")[1]


def test_the_open_form_warns(ascend: Ascend) -> None:
    text = rendered(ascend, "docker-open-detached.sh")
    assert "WARNING: open form" in text
    assert re.search(r"WARNING: vLLM 0\.18\.0rc1 has \d+ open advisories", text)


# ------------------------------------------------------------------------------------------ images and chips


@pytest.mark.parametrize(
    ("chip", "system", "mirror", "reference"),
    [
        ("310P3", "openeuler", "none", "quay.io/ascend/vllm-ascend:v0.23.0-310p-openeuler"),
        ("910B3", "ubuntu", "daocloud", "m.daocloud.io/quay.io/ascend/vllm-ascend:v0.23.0"),
        ("910_9391", "ubuntu", "nju", "quay.nju.edu.cn/ascend/vllm-ascend:v0.23.0-a3"),
        ("950DT", "openeuler", "none", "quay.io/ascend/vllm-ascend:v0.23.0-a5-openeuler"),
    ],
)
def test_images_by_chip_system_and_mirror(chip: str, system: str, mirror: str, reference: str) -> None:
    assert find_image(find(chip), system=system, mirror=mirror, image_of="vllm-ascend").reference == reference


def test_an_unknown_release_is_taken_with_a_warning(ascend: Ascend) -> None:
    answer = ascend("deploy", "qwen3-8b", "--chip", "310P3", "--tag", "v9.9.9-310p", "--json")
    assert answer.code == 0
    assert any("not a release known here" in line for line in answer.json["warnings"])


def test_every_chip_has_a_base_image() -> None:
    references = {cann_image(chip) for chip in chips()}
    assert all(
        re.fullmatch(r"quay\.io/ascend/cann:9\.1\.0-(310p|910b|a3|950)-ubuntu22\.04-py3\.11", one) for one in references
    )


def test_devices() -> None:
    assert parse_devices("0-2,5") == (0, 1, 2, 5)


def test_output_goes_to_a_file(ascend: Ascend, tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    answer = ascend("deploy", "qwen3-8b", "--chip", "310P3", "--target", "compose", "--output", file)
    assert (answer.code, answer.out) == (0, "")
    assert yaml.safe_load(file.read_text())["services"]


def test_json_holds_text_and_facts(ascend: Ascend) -> None:
    document = ascend("deploy", "qwen3-8b", "--chip", "310P3", "--devices", "2", "--json").json
    assert document["schema"] == "ascend.deploy/1"
    assert document["devices"] == [2]
    assert "--device /dev/davinci2" in document["text"]
    assert json.dumps(document)
