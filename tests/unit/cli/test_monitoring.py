"""What `ascend deploy --monitoring` adds: names that a server and an exporter really show, rules that Prometheus takes.

data/vllm-0.33-metrics.txt is /metrics of vLLM 0.33.0 with this plugin serving SmolLM2 on an emulated Duo host, after
three requests (without the `_created` samples and Python's own). NPU_EXPORTER are names and labels of MindCluster's
npu-exporter, component/npu-exporter/collector/{common,metrics} of 2026-08-21.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import compose_spec
import kubernetes_validate
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from ascend_cli.deploy.dashboard import dashboard
from ascend_cli.deploy.monitoring import configuration, rules
from ascend_cli.hardware import Host
from ascend_cli.hardware.npu_smi import parse
from ascend_cli.top.export import exposition, parse_address, server

from .conftest import Ascend
from .test_npu_smi import A2, DUO

METRICS = Path(__file__).parent / "data/vllm-0.33-metrics.txt"
NPU_EXPORTER = {
    "machine_npu_nums",
    "npu_chip_info_name",
    "npu_chip_info_health_status",
    "npu_chip_info_utilization",
    "npu_chip_info_temperature",
    "npu_chip_info_power",
    "npu_chip_info_used_memory",
    "npu_chip_info_total_memory",
    "npu_chip_info_hbm_used_memory",
    "npu_chip_info_hbm_total_memory",
    "npu_chip_info_error_code",
    "npu_chip_info_process_info_num",
}
NPU_LABELS = {"id", "model_name", "vdie_id", "pcie_bus_info", "namespace", "pod_name", "container_name", "name"}
FROM_PROMETHEUS = {"job", "instance"}
PROMTOOL = shutil.which("promtool")


def samples() -> dict[str, set[str]]:
    """Labels by sample name, of the real server."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(METRICS.read_text()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def expressions() -> dict[str, str]:
    """Every query of the rules and of the dashboard, by its name."""
    alerts = {rule["alert"]: rule["expr"] for group in rules()["groups"] for rule in group["rules"]}
    panels = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in dashboard()["panels"]
        for target in panel.get("targets", ())
    }
    return alerts | panels


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:vllm:|npu_|machine_)\w+", expression))


@pytest.mark.parametrize("name", list(expressions()))
def test_every_name_and_label_is_one_that_is_exported(name: str) -> None:
    expression = expressions()[name]
    shown = samples() | dict.fromkeys(NPU_EXPORTER, NPU_LABELS)
    used = names_in(expression)
    assert used <= shown.keys(), "nothing exports this name"
    assert used or expression.startswith("up{")
    labels = {
        label
        for part in re.findall(r"(?:by|on) \(([^)]*)\)", expression) + re.findall(r"\{([^}]*)\}", expression)
        for label in re.findall(r"([a-z_]+)(?:[=!~]|,|$|\s)", re.sub(r'"[^"]*"', "", part))
    }
    for metric in used:
        assert labels <= shown[metric] | FROM_PROMETHEUS | NPU_LABELS, expression


def test_the_check_of_names_can_fail() -> None:
    assert not names_in("rate(vllm:gpu_cache_usage_perc[5m])") <= samples().keys()  # vLLM's before 0.11


def test_every_alert_says_what_to_look_at() -> None:
    for group in rules()["groups"]:
        for rule in group["rules"]:
            assert rule["annotations"]["summary"].endswith("."), rule
            assert rule["labels"]["severity"] in ("warning", "critical")


ANSWERS: list[tuple[str, list[dict[str, Any]], str]] = [
    ("up{job='vllm', instance='a:8000'}", [{"at": "3m", "alert": "VllmDown"}], "0x10"),
    ("up{job='vllm', instance='a:8000'}", [{"at": "3m", "alert": ""}], "1x10"),
    ("npu_chip_info_health_status{id='3', instance='h'}", [{"at": "3m", "alert": "NpuUnhealthy"}], "0x10"),
    ("npu_chip_info_temperature{id='3', instance='h'}", [{"at": "8m", "alert": "NpuHot"}], "91x20"),
    ("npu_chip_info_temperature{id='3', instance='h'}", [{"at": "8m", "alert": ""}], "60x20"),
    ("machine_npu_nums{instance='h'}", [{"at": "12m", "alert": "NpuLost"}], "8x5 7x20"),
    ("vllm:kv_cache_usage_perc{engine='0', model_name='m'}", [{"at": "15m", "alert": "VllmCacheFull"}], "0.99x30"),
    ("vllm:num_requests_waiting{engine='0', model_name='m'}", [{"at": "20m", "alert": "VllmQueue"}], "4x30"),
    ("vllm:num_requests_waiting{engine='0', model_name='m'}", [{"at": "20m", "alert": ""}], "4x14 0x1 4x10"),
]


@pytest.mark.skipif(PROMTOOL is None, reason="promtool (Debian: prometheus) is not installed")
def test_prometheus_takes_rules_and_configuration(tmp_path: Path) -> None:
    rule_file = tmp_path / "rules.yml"
    rule_file.write_text(yaml.safe_dump(rules()))
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(configuration("vllm:8000", "host:8082", str(rule_file))))
    for words in (["check", "rules", str(rule_file)], ["check", "config", str(tmp_path / "prometheus.yml")]):
        done = subprocess.run([str(PROMTOOL), *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and "SUCCESS" in done.stdout, done.stdout + done.stderr


@pytest.mark.skipif(PROMTOOL is None, reason="promtool (Debian: prometheus) is not installed")
def test_prometheus_takes_every_query_of_the_dashboard(tmp_path: Path) -> None:
    queries = [
        expression.replace("$__rate_interval", "1m").replace("$model", ".*") for expression in expressions().values()
    ]
    recorded = [{"record": f"q{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "q.yml").write_text(yaml.safe_dump({"groups": [{"name": "q", "rules": recorded}]}))
    done = subprocess.run([str(PROMTOOL), "check", "rules", str(tmp_path / "q.yml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(PROMTOOL is None, reason="promtool (Debian: prometheus) is not installed")
def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules()))
    summaries = {rule["alert"]: rule for group in rules()["groups"] for rule in group["rules"]}
    tests = []
    for series, wanted, values in ANSWERS:
        alert = wanted[0]["alert"]
        labels = dict(re.findall(r"(\w+)='([^']*)'", series))
        for name in summaries if not alert else [alert]:
            expected = []
            if alert:
                value = values.split()[-1].split("x")[0]
                told = summaries[name]["annotations"]["summary"].replace("{{ $value }}", value)
                for label, text in labels.items():
                    told = told.replace(f"{{{{ $labels.{label} }}}}", text)
                expected = [
                    {
                        "exp_labels": labels | {"severity": summaries[name]["labels"]["severity"]},
                        "exp_annotations": {"summary": told},
                    }
                ]
            case = [{"eval_time": wanted[0]["at"], "alertname": name, "exp_alerts": expected}]
            series_given = [{"series": series.replace("'", '"'), "values": values}]
            tests.append({"interval": "1m", "input_series": series_given, "alert_rule_test": case})
    document = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(document))
    done = subprocess.run(
        [str(PROMTOOL), "test", "rules", "tests.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("more", [[], ["--no-proxy"]])
def test_the_compose_file_carries_everything(ascend: Ascend, more: list[str]) -> None:
    answer = ascend("deploy", "qwen3-8b", "--chip", "910B3", "--target", "compose", "--monitoring", *more)
    assert answer.code == 0, answer.err
    # Docker writes the host's address there; this parser of the specification takes addresses only.
    compose = compose_spec.PyCompose.from_yaml(answer.out.replace(":host-gateway", ":172.17.0.1"))
    compose.validate()
    assert compose.to_spec().services
    document = yaml.safe_load(answer.out)
    told = {name: config["content"].replace("$$", "$") for name, config in document["configs"].items()}
    assert json.loads(told["dashboard"]) == dashboard()
    assert yaml.safe_load(told["rules"]) == rules()
    targets = [job["static_configs"][0]["targets"][0] for job in yaml.safe_load(told["prometheus"])["scrape_configs"]]
    assert targets == ["vllm-ascend:8000", "host.docker.internal:8082"]
    assert "$__rate_interval" in told["dashboard"] and not re.search(
        r"(?<!\$)\$(?!\$)", answer.out.split("dashboard:")[-1]
    )
    for name in ("prometheus", "grafana"):
        added = document["services"][name]
        assert all(port.startswith("127.0.0.1:") for port in added["ports"]) and added["cap_drop"] == ["ALL"]
    settings = document["services"]["grafana"]["environment"]
    assert settings["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer" and settings["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"


def test_the_manifests_are_for_the_operator(ascend: Ascend) -> None:
    arguments = ["qwen3-8b", "--chip", "910B3", "--target", "k8s", "--namespace", "serving", "--monitoring"]
    answer = ascend("deploy", *arguments)
    found = {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(answer.out)}
    assert found["PrometheusRule", "vllm-ascend-rules"]["spec"] == rules()
    board = found["ConfigMap", "vllm-ascend-dashboard"]
    assert board["metadata"]["labels"] == {"grafana_dashboard": "1"}
    assert json.loads(board["data"]["ascend.json"]) == dashboard()
    monitor = found["PodMonitor", "vllm-ascend-server"]["spec"]
    pod = found["Deployment", "vllm-ascend"]["spec"]["template"]
    assert monitor["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert monitor["podMetricsEndpoints"][0]["port"] in [port["name"] for port in pod["spec"]["containers"][0]["ports"]]
    rule = found["NetworkPolicy", "vllm-ascend"]["spec"]["ingress"][-1]
    assert rule["ports"] == [{"protocol": "TCP", "port": 8000}] and "namespaceSelector" in rule["from"][0]
    for (kind, _), document in found.items():
        if kind not in ("PrometheusRule", "PodMonitor"):  # kinds of the operator's own
            kubernetes_validate.validate(document, "1.30", strict=True)


@pytest.mark.parametrize("target", ["docker", "systemd"])
def test_elsewhere_it_is_refused_in_a_line(ascend: Ascend, target: str) -> None:
    answer = ascend("deploy", "qwen3-8b", "--chip", "910B3", "--target", target, "--monitoring")
    assert answer.code == 2 and "ascend top" in answer.error_line


@pytest.mark.parametrize("name", ["prometheus", "grafana"])
def test_a_service_cannot_take_their_names(ascend: Ascend, name: str) -> None:
    answer = ascend("deploy", "qwen3-8b", "--chip", "910B3", "--target", "compose", "--name", name)
    assert answer.code == 2 and name in answer.error_line


@pytest.mark.parametrize(("table", "used"), [(DUO, "npu_chip_info_used_memory"), (A2, "npu_chip_info_hbm_used_memory")])
def test_chips_are_exported_under_npu_exporter_s_names(table: str, used: str) -> None:
    reading = parse(table)
    found = {family.name: family.samples for family in text_string_to_metric_families(exposition(reading))}
    assert found.keys() <= NPU_EXPORTER
    assert [sample.value for sample in found[used]] == [chip.memory_used_mib for chip in reading.chips]
    assert found["machine_npu_nums"][0].value == len(reading.chips)
    assert all(set(sample.labels) <= NPU_LABELS for each in found.values() for sample in each)
    if table is DUO:
        assert "npu_chip_info_power" not in found, "what npu-smi does not show is not 0"


def _body(opener: urllib.request.OpenerDirector, url: str) -> bytes:
    with opener.open(url) as answer:
        found: bytes = answer.read()
    return found


def test_the_exporter_answers_and_tells_a_failure(tmp_path: Path) -> None:
    table = tmp_path / "table"
    table.write_text(DUO)
    command = tmp_path / "npu-smi"
    command.write_text(f"#!/bin/sh\ncat {table}\n")
    command.chmod(0o755)

    class Machine(Host):
        def npu_smi(self):  # type: ignore[no-untyped-def]
            from ascend_cli.hardware.npu_smi import read

            return read(command)

    with server(("127.0.0.1", 0), Machine()) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{serving.server_address[1]}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        assert b"npu_chip_info_temperature" in _body(opener, f"{url}/metrics")
        table.write_text("DrvMngGetConsoleLogLevel failed. (ret=4)\n")
        for path, status in (("metrics", 503), ("other", 404)):
            with pytest.raises(urllib.error.HTTPError) as caught:
                opener.open(f"{url}/{path}")
            caught.value.close()
            assert caught.value.code == status
        serving.shutdown()


@pytest.mark.parametrize("text", [" ", ":", "x", "1.2.3.4:", "0", "70000", "a b:80", "[::1]", "http://a:80"])
def test_an_address_that_is_none_is_one_line(ascend: Ascend, text: str) -> None:
    answer = ascend("top", "--export", text)
    assert answer.code == 2 and "HOST:PORT" in answer.error_line


def test_addresses() -> None:
    assert parse_address("8082") == ("127.0.0.1", 8082)
    assert parse_address("0.0.0.0:9") == ("0.0.0.0", 9) and parse_address("[::1]:9") == ("::1", 9)
