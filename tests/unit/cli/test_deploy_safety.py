"""What `ascend deploy` renders is run, not only read: start lines by a shell, values by each target's own reader."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ascend_cli.deploy import document
from ascend_cli.deploy.start import KEY_FILE

from .conftest import Ascend

BASE = ["deploy", "qwen3-8b", "--chip", "310P3"]
SHOW_KEY = 'printf "started with %s" "$VLLM_API_KEY"'


def compose_of(ascend: Ascend, *more: str) -> dict[str, Any]:
    answer = ascend(*BASE, "--target", "compose", *more)
    assert answer.code == 0, answer.err
    return yaml.safe_load(answer.out)


def manifests_of(ascend: Ascend, *more: str) -> list[dict[str, Any]]:
    answer = ascend(*BASE, "--target", "k8s", *more)
    assert answer.code == 0, answer.err
    return list(yaml.safe_load_all(answer.out))


def docker_words(text: str) -> list[str]:
    command = text[text.index("docker run") :].split("\n\n")[0].replace("\\\n", " ")
    return shlex.split(command)


def start_lines(ascend: Ascend) -> dict[str, list[str]]:
    """The command of each target's container, with what it executes replaced by one that shows its key."""
    docker = docker_words(ascend(*BASE).out)
    inside = ascend(*BASE, "--interactive").out.split("# then, inside:")[1].replace("\\\n", " ")
    compose = [word.replace("$$", "$") for word in compose_of(ascend)["services"]["vllm-ascend"]["command"]]
    lines = {"docker": docker[docker.index("/bin/bash") :], "interactive": shlex.split(inside), "compose": compose}
    return {name: [*words[: words.index("--") + 1], "/bin/bash", "-c", SHOW_KEY] for name, words in lines.items()}


# ------------------------------------------------------------------------------------- no key, no server (A1)


@pytest.mark.parametrize("key", ["missing", "empty", "blank", "unreadable", "folder", "good"])
@pytest.mark.parametrize("target", ["docker", "interactive", "compose"])
def test_no_server_starts_without_its_key(ascend: Ascend, tmp_path: Path, target: str, key: str) -> None:
    file = tmp_path / "vllm_api_key"
    if key == "folder":
        file.mkdir()
    elif key != "missing":
        file.write_text({"empty": "", "blank": " \n"}.get(key, "s3cret\n"))
    words = [word.replace(KEY_FILE, str(file)) for word in start_lines(ascend)[target]]
    run_as: dict[str, Any] = {}
    if key == "unreadable":
        if os.getuid() != 0:
            pytest.skip("root alone can start a process that a mode binds")
        file.chmod(0o600)
        os.chown(file, 1001, 1001)
        for folder in (tmp_path, *tmp_path.parents[:3]):
            folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
        run_as = {"user": 1000, "group": 1000, "extra_groups": []}
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, cwd="/", **run_as)
    if key == "good":
        assert (done.returncode, done.stdout) == (0, "started with s3cret")
        return
    assert done.returncode == 1
    assert "started" not in done.stdout
    told = [line for line in done.stderr.splitlines() if not line.startswith("cat: ")]
    assert len(told) == 1 and "no API key in" in told[0]


@pytest.mark.parametrize("key", [None, "", "  ", "s3cret"])
@pytest.mark.parametrize(
    "more", [[], ["--chip", "910B3", "--devices", "0-7", "--nodes", "2"]], ids=["one node", "two nodes"]
)
def test_no_pod_serves_without_its_key(ascend: Ascend, key: str | None, more: list[str]) -> None:
    first = manifests_of(ascend, *more)[0]
    spec = first["spec"]
    pod = spec["leaderWorkerTemplate"]["leaderTemplate"] if more else spec["template"]
    script = pod["spec"]["containers"][0]["args"][-1].splitlines()[0]  # the check stands first
    environment = {"PATH": os.environ["PATH"]} | ({} if key is None else {"VLLM_API_KEY": key})
    done = subprocess.run(
        ["/bin/bash", "-c", f"{script}\n{SHOW_KEY}"], env=environment, capture_output=True, text=True, check=False
    )
    is_good = key == "s3cret"
    assert done.returncode == (0 if is_good else 1)
    assert ("started" in done.stdout) is is_good
    assert is_good or len(done.stderr.splitlines()) == 1


def run_script(text: str, commands: Path) -> int:
    environment = {"PATH": str(commands)}
    return subprocess.run(
        ["/bin/sh"], input=text.encode(), env=environment, cwd=commands.parent, check=False
    ).returncode


@pytest.mark.parametrize("broken", ["openssl", "sudo"])
def test_the_script_stops_where_the_key_cannot_be_made(ascend: Ascend, tmp_path: Path, broken: str) -> None:
    """Run by sh with stand-ins: docker must not be reached, and a second try must not find an empty key good."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, body in {
        "openssl": "echo 0123",
        "sudo": "exit 0",
        "docker": f"echo started >> {tmp_path}/docker",
        "realpath": 'echo "$1"',
    }.items():
        script = commands / name
        script.write_text(f"#!/bin/sh\n{'exit 1' if name == broken else body}\n")
        script.chmod(0o755)
    text = ascend(*BASE, "--model-dir", "/data/qwen3-8b").out
    for _ in range(2):
        done = subprocess.run(
            ["/bin/sh"],
            input=text,
            env={"PATH": str(commands)},
            cwd=tmp_path,
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.returncode != 0
        assert not (tmp_path / "docker").exists()
    (commands / broken).write_text("#!/bin/sh\necho 0123\n")
    assert run_script(text, commands) == 0
    assert (tmp_path / "docker").read_text() == "started\n"


def test_a_key_in_the_flags_is_refused(ascend: Ascend) -> None:
    answer = ascend(*BASE, "--", "--api-key", "SECRET")
    assert answer.code == 2
    assert "SECRET" not in answer.error_line and "--api-key-file" in answer.error_line


# ---------------------------------------------------------------------------- values reach their reader unchanged


VALUES = ["-1", "0x10", "1_000", "1e3", "2024-01-01", "1:30", "0o17", ".5", "NO", "~", "null", "a: b", "- x", "{{ x }}"]
VALUES += [
    "#c",
    "a #c",
    "'",
    '"',
    "$HOME",
    "${X}",
    "$(id)",
    "`id`",
    "中文",
    "a\\b",
    "!tag",
    "&a",
    "*a",
    "%",
    "@",
    "|",
    "",
]


@pytest.mark.parametrize("value", VALUES)
def test_flags_reach_vllm_as_they_were_typed(ascend: Ascend, value: str) -> None:
    given = ["--", "--seed", value]
    compose = compose_of(ascend, *given)["services"]["vllm-ascend"]["command"]
    assert all(isinstance(word, str) for word in compose)
    assert compose[-2:] == ["--seed", value.replace("$", "$$")], "Compose reads $NAME, and two dollars as one"
    docker = docker_words(ascend(*BASE, *given).out)
    assert docker[-2:] == ["--seed", value]
    script = manifests_of(ascend, *given)[0]["spec"]["template"]["spec"]["containers"][0]["args"][-1]
    assert shlex.split(script[script.index("exec vllm") :].replace("\\\n", " "))[-2:] == ["--seed", value]


@settings(max_examples=150, deadline=None)
@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12))
def test_every_text_survives_the_serializer(value: Any) -> None:
    assert yaml.safe_load(document.dump([{"value": value}], ["a\nb: c"])) == {"value": value}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12))
def test_any_served_name_and_folder_is_quoted(ascend: Ascend, name: str) -> None:
    folder = f"/data/{name.replace(':', '').replace(chr(0x2028), '')}"
    more = ["--model-dir", folder, f"--served-model-name={name.replace(chr(0x2028), '')}"]
    answer = ascend(*BASE, *more)
    assert answer.code == 0, answer.err
    words = docker_words(answer.out)
    assert f"{folder}:{folder}:ro" in words
    assert words[words.index("--served-model-name") + 1] == more[-1].partition("=")[2]
    command = compose_of(ascend, *more)["services"]["vllm-ascend"]["command"]
    assert command[command.index("--served-model-name") + 1].replace("$$", "$") == more[-1].partition("=")[2]


def test_a_key_file_with_an_odd_name_stays_whole(ascend: Ascend, tmp_path: Path) -> None:
    file = tmp_path / "my #1 key's"
    file.write_text("k")
    secrets = compose_of(ascend, "--api-key-file", str(file))["secrets"]
    assert secrets["vllm_api_key"]["file"] == str(file)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--target", "k8s", "--name", "My_Server"], "no name for Kubernetes"),
        (["--target", "k8s", "--name", "123"], "no name for Kubernetes"),
        (["--target", "k8s", "--name", "a" * 60], "no name for Kubernetes"),
        (["--target", "k8s", "--namespace", "Team A"], "no namespace"),
        (["--target", "k8s", "--namespace", "a\nb"], "no namespace"),
        (["--name", "My Server"], "no name for a container"),
        (["--name", "a: {b: c}\n  evil: true"], "no name for a container"),
        (["--target", "compose", "--name", "proxy"], "another container"),
        (["--image", "a\nrm -rf /"], "is no image"),
        (["--image", "UPPER/case"], "is no image"),
        (["--image", "x:y", "--tag", "v0.23.0-310p"], "leave --tag"),
        (["--model-dir", "/data/a:b"], "colon"),
        (["--model-dir", "/data/a\nb"], "control character"),
        (["--served-model-name", "a\nb"], "control character"),
        (["--nodes", "2", "--target", "k8s"], "joins no servers"),
        (["--nodes", "2"], "k8s only"),
        (["--namespace", "x"], "k8s only"),
        (["--", "--port", "9000"], "contradicts"),
        (["--", "--host=0.0.0.0"], "contradicts"),
        (["--", "-tp", "2"], "use --tp"),
        (["--max-model-len", "10000000"], "does not fit"),
        (["--image-of", "ascend-plugin", "--tag", "v0.23.0-310p"], "--image-of"),
    ],
)
def test_what_no_target_would_take_is_refused_in_a_line(ascend: Ascend, arguments: list[str], says: str) -> None:
    answer = ascend(*BASE[:2], "--chip", "310P3", *arguments)
    assert answer.code == 2, answer.out
    assert says in answer.error_line


def test_what_does_not_fit_is_not_rendered(ascend: Ascend) -> None:
    answer = ascend("deploy", "qwen3-32b", "--chip", "310P3", "--devices", "0")
    assert answer.code == 2
    assert "does not fit 310P3 at tensor-parallel size 1" in answer.error_line


def test_a_name_that_is_a_number_or_a_word_of_yaml_is_text(ascend: Ascend) -> None:
    for name in ("123", "true", "1e3"):
        assert list(compose_of(ascend, "--name", name)["services"]) == [name, "proxy"]


def test_a_service_named_vllm_is_not_given_a_port_by_kubernetes(ascend: Ascend) -> None:
    pod = manifests_of(ascend, "--name", "vllm")[0]["spec"]["template"]["spec"]
    assert pod["enableServiceLinks"] is False


def test_mindcluster_pods_go_to_volcano(ascend: Ascend) -> None:
    def pod(*more: str) -> dict[str, Any]:
        return manifests_of(ascend, *more)[0]["spec"]["template"]["spec"]

    assert pod()["schedulerName"] == "volcano"
    assert "schedulerName" not in pod("--scheduler", "") and "schedulerName" not in pod("--k8s-flavor", "hami")


# ------------------------------------------------------------------------------------------------------ the rest


def test_the_proxy_lets_through_what_the_task_needs(ascend: Ascend, tmp_path: Path) -> None:
    text = compose_of(ascend)["configs"]["proxy"]["content"]
    assert "v1/chat/completions" in text and "v1/rerank" not in text
    assert "location = /metrics" in text and "resolver" in text
    config = {"architectures": ["Qwen3ForSequenceClassification"], "model_type": "qwen3"}
    shape = {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 4, "num_attention_heads": 16}
    sizes = {"vocab_size": 1000, "num_key_value_heads": 8, "max_position_embeddings": 8192}
    (tmp_path / "config.json").write_text(json.dumps(config | shape | sizes))
    answer = ascend("deploy", tmp_path, "--chip", "310P3", "--target", "compose")
    content = yaml.safe_load(answer.out)["configs"]["proxy"]["content"]
    assert "rerank|score" in content.replace("v1/", "") and "rewrite ^/(.*)$$ /v1/$$1 break;" in content
    kubernetes = next(one for one in manifests_of(ascend) if one["kind"] == "ConfigMap")["data"]["default.conf"]
    assert "deny all" in kubernetes, "other pods reach the proxy"


def test_a_snapshot_of_the_hub_cache_is_mounted_with_its_blobs(
    ascend: Ascend, tmp_path: Path, model_folder: Path
) -> None:
    repository = tmp_path / "hub" / "models--Qwen--Qwen3-8B"
    snapshot = repository / "snapshots" / "0123abcd"
    snapshot.parent.mkdir(parents=True)
    model_folder.rename(snapshot)
    words = docker_words(ascend("deploy", snapshot, "--chip", "310P3").out)
    assert f"{repository}:{repository}:ro" in words
    assert words[words.index("--model") + 1] == str(snapshot)
    assert words[words.index("--served-model-name") + 1] == "Qwen3-8B"


def test_the_checkpoints_format_decides_the_chips(ascend: Ascend, model_folder: Path) -> None:
    assert len(ascend("deploy", model_folder, "--chip", "310P3", "--json").json["devices"]) == 2
    (model_folder / "quant_model_description.json").write_text("{}")
    assert len(ascend("deploy", model_folder, "--chip", "310P3", "--json").json["devices"]) == 1


def test_the_open_form_keeps_its_options(ascend: Ascend) -> None:
    words = docker_words(ascend(*BASE, "--open", "--port", "8123", "--max-num-seqs", "5").out)
    assert words[words.index("--port") + 1] == "8123" and words[words.index("--max-num-seqs") + 1] == "5"


def test_every_image_comes_from_the_mirror(ascend: Ascend) -> None:
    services = compose_of(ascend, "--mirror", "daocloud", "--image-of", "vllm-ascend")["services"]
    assert all(service["image"].startswith("m.daocloud.io/") for service in services.values())
    assert (
        "BASE=m.daocloud.io/quay.io/ascend/cann:"
        in ascend("deploy", "--target", "dockerfile", "--chip", "310P3", "--mirror", "daocloud").out
    )


def test_a_systemd_unit_is_closed_and_verified(ascend: Ascend, tmp_path: Path) -> None:
    """systemd refuses a missing credential, `ascend serve` an empty one; values keep their dollars and percents."""
    words = ["--target", "systemd", "--served-model-name", 'a%b $c "d"', "--model-dir", "/data/a b"]
    answer = ascend(*BASE, *words)
    assert answer.code == 0, answer.err
    unit = answer.out
    assert "LoadCredential=api-key:/etc/vllm-ascend/api-key" in unit
    assert '"--host" "127.0.0.1" "--port" "8000"' in unit and "0.0.0.0" not in unit
    assert '"a%%b $$c \\"d\\""' in unit and '"/data/a b"' in unit
    for line in ("NoNewPrivileges=yes", "CapabilityBoundingSet=", "ProtectSystem=strict", "Restart=on-failure"):
        assert line in unit
    if shutil.which("systemd-analyze"):
        file = tmp_path / "vllm-ascend.service"
        file.write_text(unit)
        done = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True, check=False)
        assert "vllm-ascend.service:" not in done.stderr, done.stderr
    assert ascend(*BASE, "--target", "systemd", "--proxy").code == 2


NGINX = shutil.which("nginx") or next((path for path in ("/usr/sbin/nginx",) if Path(path).exists()), None)


@pytest.mark.skipif(NGINX is None, reason="nginx (Debian: nginx-light) is not installed")
@pytest.mark.parametrize("target", ["compose", "k8s"])
@pytest.mark.parametrize("model", ["qwen3-8b", "reranker"])
def test_nginx_takes_the_proxys_configuration(ascend: Ascend, tmp_path: Path, target: str, model: str) -> None:
    """The real nginx reads the rendered server block inside a configuration such as its image has."""
    arguments = [model, "--chip", "910B3", "--target", target]
    if model == "reranker":
        arguments[0] = "qwen3-0.6b"
        arguments += ["--", "--runner", "pooling"]
    documents = list(yaml.safe_load_all(ascend("deploy", *arguments).out))
    if target == "compose":
        text = documents[0]["configs"]["proxy"]["content"].replace("$$", "$")
    else:
        text = next(one["data"]["default.conf"] for one in documents if one["metadata"]["name"].endswith("-proxy"))
    (tmp_path / "server.conf").write_text(text)
    folders = " ".join(
        f"{name}_temp_path {tmp_path}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {folders} include {tmp_path}/server.conf; }}\n"
    )
    done = subprocess.run(
        [str(NGINX), "-t", "-c", str(tmp_path / "nginx.conf")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "successful" in done.stderr, done.stderr


@pytest.mark.parametrize("target", ["docker", "compose", "k8s"])
@pytest.mark.parametrize("system", ["ubuntu", "openeuler"])
def test_an_atlas_200i_pro_gets_its_own_nodes_and_files(ascend: Ascend, target: str, system: str) -> None:
    """The chip is on board: no devmm_svm, no hisi_hdc, and the driver's files lie about the system."""
    arguments = ["qwen3-0.6b", "--chip", "Atlas 200I Pro", "--target", target, "--os", system]
    answer = ascend("deploy", *arguments)
    assert answer.code == 0 and "privileged" in answer.out.splitlines()[0], answer.err
    assert "/var/dmp_daemon" in answer.out and "hisi_hdc" not in answer.out and "/usr/local/dcmi" not in answer.out
    assert ("/dev/ascend_manager" in answer.out) == (target != "k8s")  # a device plugin gives a pod its nodes
    assert "libyaml-0.so.2" in answer.out and ("libsemanage" in answer.out) == (system == "openeuler")
    assert "hisi_hdc" not in ascend("deploy", *arguments[:1], "--chip", "Atlas 200I Pro").out
    assert "dmp_daemon" not in ascend("deploy", *arguments[:1], "--chip", "310P1").out


@pytest.mark.parametrize(
    ("chip", "more", "label"),
    [
        ("310P3", [], "ascend-310P"),
        ("910B3", [], "ascend-910b"),
        ("910_9391", [], "ascend-910b"),
        ("950PR", [], "ascend-npu"),
        ("910B3", ["--scheduler", ""], None),
        ("910B3", ["--k8s-flavor", "hami"], None),
    ],
)
def test_volcano_s_pods_carry_mindclusters_label(ascend: Ascend, chip: str, more: list[str], label: str | None) -> None:
    """Without ring-controller.atlas MindCluster takes no pod for its own (its k8s API page, pod labels)."""
    documents = list(yaml.safe_load_all(ascend("deploy", "qwen3-8b", "--chip", chip, "--target", "k8s", *more).out))
    main = next(one for one in documents if one["kind"] == "Deployment")
    labels = main["spec"]["template"]["metadata"]["labels"]
    assert labels.get("ring-controller.atlas") == label
    assert "ring-controller.atlas" not in main["spec"]["selector"]["matchLabels"], "a selector cannot change later"


def test_an_image_by_its_digest_is_rendered_everywhere(ascend: Ascend) -> None:
    pinned = "registry.local:5000/ascend-plugin@sha256:" + "a" * 64
    for target in ("docker", "compose", "k8s"):
        answer = ascend("deploy", "qwen3-8b", "--chip", "910B3", "--target", target, "--image", pinned)
        assert answer.code == 0 and answer.out.count(pinned) == 1, answer.err
    assert "--build-arg BASE=name@sha256" in ascend("deploy", "--target", "dockerfile", "--chip", "910B3").out
    for broken in (pinned[:-1], pinned.replace("a" * 64, "A" * 64), pinned + "a"):
        assert ascend("deploy", "qwen3-8b", "--chip", "910B3", "--image", broken).error_line
