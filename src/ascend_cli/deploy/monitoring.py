"""What Prometheus scrapes and when it calls: the server's own metrics, and the chips' under MindCluster's names.

The server's names are those of vLLM's /metrics (vllm/v1/metrics/loggers.py). The chips' are those of MindCluster's
npu-exporter (component/npu-exporter/collector/metrics); `ascend top --export` serves the same names from npu-smi where
npu-exporter does not run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SERVER_JOB, CHIP_JOB = "vllm", "npu"
EXPORTER_PORT = 8082  # npu-exporter's own default
SCRAPE_S = 15
HOT_CELSIUS = 85  # below where the chips slow themselves down; ours, not a limit of Huawei's
SLOW_FIRST_TOKEN_S = 5
SLOW_TOKEN_S = 0.2
# 310P shows one memory, the chips with HBM show that one as well: the latter counts where both are.
MEMORY_USED = "(npu_chip_info_hbm_used_memory or npu_chip_info_used_memory)"
MEMORY_TOTAL = "(npu_chip_info_hbm_total_memory > 0 or npu_chip_info_total_memory)"
MEMORY_SHARE = f"{MEMORY_USED} / {MEMORY_TOTAL}"


def _alert(name: str, expression: str, lasting: str, severity: str, says: str) -> dict[str, Any]:
    return {
        "alert": name,
        "expr": expression,
        "for": lasting,
        "labels": {"severity": severity},
        "annotations": {"summary": says},
    }


def _slow(metric: str) -> str:
    return f"histogram_quantile(0.95, sum by (le, model_name) (rate({metric}_bucket[5m])))"


def rules() -> dict[str, Any]:
    """A rule file: groups of alerts, each with a sentence that says what to look at."""
    server = [
        _alert(
            "VllmDown",
            f'up{{job="{SERVER_JOB}"}} == 0',
            "2m",
            "critical",
            "The server at {{ $labels.instance }} does not answer: see its log, and `ascend doctor` on its host.",
        ),
        _alert(
            "VllmStuck",
            "vllm:num_requests_running > 0 and on (instance, engine) rate(vllm:generation_tokens_total[5m]) == 0"
            " and on (instance, engine) rate(vllm:prompt_tokens_total[5m]) == 0",
            "5m",
            "critical",
            "Engine {{ $labels.engine }} of {{ $labels.model_name }} holds requests and computes nothing.",
        ),
        _alert(
            "VllmErrors",
            'sum by (model_name) (rate(vllm:request_success_total{finished_reason="error"}[5m])) > 0',
            "5m",
            "warning",
            "Requests to {{ $labels.model_name }} end in errors: see the server's log.",
        ),
        _alert(
            "VllmQueue",
            "min_over_time(vllm:num_requests_waiting[10m]) > 0",
            "1m",
            "warning",
            "Requests to {{ $labels.model_name }} have waited for ten minutes on end: more load than it can take.",
        ),
        _alert(
            "VllmCacheFull",
            "vllm:kv_cache_usage_perc > 0.95",
            "10m",
            "warning",
            "The cache of engine {{ $labels.engine }} is full: shorter contexts, fewer requests at once, more chips.",
        ),
        _alert(
            "VllmPreemptions",
            "rate(vllm:num_preemptions_total[10m]) > 0.1",
            "10m",
            "warning",
            "Requests are computed again because the cache is too small: lower --max-num-seqs.",
        ),
        _alert(
            "VllmSlowFirstToken",
            f"{_slow('vllm:time_to_first_token_seconds')} > {SLOW_FIRST_TOKEN_S}",
            "10m",
            "warning",
            f"One request in twenty to {{{{ $labels.model_name }}}} waits over {SLOW_FIRST_TOKEN_S} s for its answer.",
        ),
        _alert(
            "VllmSlowTokens",
            f"{_slow('vllm:inter_token_latency_seconds')} > {SLOW_TOKEN_S}",
            "10m",
            "warning",
            f"One token in twenty of {{{{ $labels.model_name }}}} takes over {SLOW_TOKEN_S:g} s.",
        ),
    ]
    chips = [
        _alert(
            "NpuMetricsMissing",
            f'up{{job="{CHIP_JOB}"}} == 0',
            "5m",
            "warning",
            "Nothing tells of the chips at {{ $labels.instance }}: start npu-exporter, or `ascend top --export`.",
        ),
        _alert(
            "NpuUnhealthy",
            "npu_chip_info_health_status == 0",
            "1m",
            "critical",
            "Chip {{ $labels.id }} of {{ $labels.instance }} is not healthy: `npu-smi info`, `ascend doctor`.",
        ),
        _alert(
            "NpuLost",
            "machine_npu_nums < max_over_time(machine_npu_nums[1h])",
            "1m",
            "critical",
            "{{ $labels.instance }} shows fewer chips than within the last hour: `ascend doctor`.",
        ),
        _alert(
            "NpuErrorCode",
            "npu_chip_info_error_code > 0",
            "1m",
            "warning",
            "Chip {{ $labels.id }} of {{ $labels.instance }} reports error code {{ $value }}.",
        ),
        _alert(
            "NpuHot",
            f"npu_chip_info_temperature > {HOT_CELSIUS}",
            "5m",
            "warning",
            "Chip {{ $labels.id }} of {{ $labels.instance }} has {{ $value }} degrees: see to its air.",
        ),
        _alert(
            "NpuMemoryFull",
            f"{MEMORY_SHARE} > 0.99",
            "10m",
            "warning",
            "The memory of chip {{ $labels.id }} of {{ $labels.instance }} is used up.",
        ),
    ]
    return {"groups": [{"name": "ascend-server", "rules": server}, {"name": "ascend-chips", "rules": chips}]}


def configuration(server: str, chips: str, rule_file: str) -> dict[str, Any]:
    """prometheus.yml. `server` and `chips` are HOST:PORT; /metrics of vLLM needs no key."""
    return {
        "global": {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"},
        "rule_files": [rule_file],
        "scrape_configs": [
            {"job_name": SERVER_JOB, "static_configs": [{"targets": [server]}]},
            {"job_name": CHIP_JOB, "static_configs": [{"targets": [chips]}]},
        ],
    }


def datasource(address: str) -> Mapping[str, Any]:
    """Grafana's provisioning of Prometheus as its only source."""
    return {
        "apiVersion": 1,
        "datasources": [
            {"name": "Prometheus", "uid": "prometheus", "type": "prometheus", "url": address, "isDefault": True}
        ],
    }


def provider(folder: str) -> Mapping[str, Any]:
    """Grafana's provisioning of dashboards from a folder."""
    return {
        "apiVersion": 1,
        "providers": [{"name": "ascend", "type": "file", "options": {"path": folder}, "allowUiUpdates": False}],
    }
