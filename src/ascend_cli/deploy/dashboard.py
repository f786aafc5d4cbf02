"""A Grafana dashboard of the server above and the chips below, as data: panels of one kind, laid out by a grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ascend_cli.deploy.monitoring import MEMORY_SHARE

SCHEMA = 39  # of Grafana 10 and 11; later ones read it and migrate
GRID_WIDTH, PANEL_HEIGHT = 24, 8
WINDOW = "$__rate_interval"
SOURCE = {"type": "prometheus", "uid": "${source}"}


@dataclass(frozen=True)
class Panel:
    """A graph over time: what it shows, its unit, and queries with their legends."""

    title: str
    unit: str  # Grafana's names of units
    queries: tuple[tuple[str, str], ...]
    width: int = 8
    most: float | None = None  # the axis ends here


def _rate(metric: str) -> str:
    return f'sum by (model_name) (rate({metric}{{model_name=~"$model"}}[{WINDOW}]))'


def _quantiles(metric: str) -> tuple[tuple[str, str], ...]:
    inner = f'sum by (le, model_name) (rate({metric}_bucket{{model_name=~"$model"}}[{WINDOW}]))'
    return tuple(
        (f"histogram_quantile({share}, {inner})", f"{{{{model_name}}}} {name}")
        for share, name in ((0.5, "median"), (0.95, "95th"), (0.99, "99th"))
    )


OF_MODEL = '{model_name=~"$model"}'
SERVER = (
    Panel(
        "Tokens a second",
        "short",
        (
            (_rate("vllm:generation_tokens_total"), "{{model_name}} generated"),
            (_rate("vllm:prompt_tokens_total"), "{{model_name}} prompts"),
        ),
    ),
    Panel(
        "Requests",
        "short",
        (
            (f"vllm:num_requests_running{OF_MODEL}", "running, engine {{engine}}"),
            (f"vllm:num_requests_waiting{OF_MODEL}", "waiting, engine {{engine}}"),
        ),
    ),
    Panel("Cache in use", "percentunit", ((f"vllm:kv_cache_usage_perc{OF_MODEL}", "engine {{engine}}"),), most=1),
    Panel("Time to first token", "s", _quantiles("vllm:time_to_first_token_seconds")),
    Panel("Time between tokens", "s", _quantiles("vllm:inter_token_latency_seconds")),
    Panel(
        "Prefixes found in the cache",
        "percentunit",
        (
            (
                f"{_rate('vllm:prefix_cache_hits_total')} / {_rate('vllm:prefix_cache_queries_total')}",
                "{{model_name}}",
            ),
        ),
        most=1,
    ),
    Panel(
        "Requests ended a second",
        "reqps",
        (
            (
                f'sum by (finished_reason) (rate(vllm:request_success_total{{model_name=~"$model"}}[{WINDOW}]))',
                "{{finished_reason}}",
            ),
        ),
        width=12,
    ),
    Panel(
        "Requests computed again a second",
        "reqps",
        ((f"rate(vllm:num_preemptions_total{OF_MODEL}[{WINDOW}])", "engine {{engine}}"),),
        width=12,
    ),
)
CHIP = "{{instance}} chip {{id}}"
CHIPS = (
    Panel("AI cores busy", "percent", (("npu_chip_info_utilization", CHIP),), most=100),
    Panel("Memory in use", "percentunit", ((MEMORY_SHARE, CHIP),), most=1),
    Panel("Temperature", "celsius", (("npu_chip_info_temperature", CHIP),)),
    Panel("Power (a card's, on 310P)", "watt", (("npu_chip_info_power", CHIP),), width=12),
    Panel("Health (1 is good)", "short", (("npu_chip_info_health_status", CHIP),), width=12, most=1),
)


def dashboard() -> dict[str, Any]:
    """The dashboard's JSON model, as Grafana imports and provisions it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, group in (("Server", SERVER), ("Chips", CHIPS)):
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": top, "w": GRID_WIDTH, "h": 1},
            }
        )
        top += 1
        left = 0
        for panel in group:
            if left + panel.width > GRID_WIDTH:
                left, top = 0, top + PANEL_HEIGHT
            panels.append(_panel(panel, len(panels) + 1, left, top))
            left += panel.width
        top += PANEL_HEIGHT
    return {
        "uid": "ascend-serving",
        "title": "vLLM on Ascend",
        "tags": ["ascend", "vllm"],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": True,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_source(), _model()]},
        "annotations": {"list": []},
        "panels": panels,
    }


def _panel(panel: Panel, number: int, left: int, top: int) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0, "custom": {"fillOpacity": 8, "showPoints": "never"}}
    if panel.most is not None:
        defaults["max"] = panel.most
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "datasource": SOURCE,
        "gridPos": {"x": left, "y": top, "w": panel.width, "h": PANEL_HEIGHT},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": query, "legendFormat": legend}
            for index, (query, legend) in enumerate(panel.queries)
        ],
    }


def _source() -> dict[str, Any]:
    return {"name": "source", "type": "datasource", "query": "prometheus", "label": "Source", "current": {}}


def _model() -> dict[str, Any]:
    query = "label_values(vllm:num_requests_running, model_name)"
    return {
        "name": "model",
        "type": "query",
        "label": "Model",
        "datasource": SOURCE,
        "query": {"query": query, "refId": "models"},
        "definition": query,
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }
