"""A compose file as data: the server, closed, and a proxy in front of it."""

from __future__ import annotations

import json
from typing import Any

from ascend_cli.deploy import document, monitoring, proxy
from ascend_cli.deploy.dashboard import dashboard
from ascend_cli.deploy.host_files import mounted_at
from ascend_cli.deploy.service import CACHE, CONTAINER_PORT, HOST_CACHE, USER, Service
from ascend_cli.deploy.start import KEY_FILE, start_with_key

CONFINED: dict[str, Any] = {"cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"], "read_only": True}
DOCKER_RESOLVER = "127.0.0.11"  # Docker's own, inside its networks
PROMETHEUS_PORT, GRAFANA_PORT = 9090, 3000
RULE_FILE = "/etc/prometheus/ascend-rules.yml"
DASHBOARDS = "/etc/grafana/ascend"
VIEWER_ONLY = {  # who reaches this machine's loopback may look; nobody can log in, so there is no password to guess
    "GF_AUTH_ANONYMOUS_ENABLED": "true",
    "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
    "GF_AUTH_DISABLE_LOGIN_FORM": "true",
    "GF_AUTH_BASIC_ENABLED": "false",
    "GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION": "true",
    "GF_ANALYTICS_REPORTING_ENABLED": "false",
    "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
    "GF_PLUGINS_PREINSTALL_DISABLED": "true",
}


def render(service: Service, comments: list[str]) -> str:
    return document.dump([document.without_interpolation(_file(service))], comments)


def _file(service: Service) -> dict[str, Any]:
    key_file = str(service.api_key_file)
    found: dict[str, Any] = {
        "services": {service.name: _server(service)},
        "secrets": {"vllm_api_key": {"file": key_file if key_file.startswith("/") else f"./{key_file}"}},
    }
    if service.proxy:
        found["services"]["proxy"] = _proxy(service)
        found["networks"] = {"inside": {"internal": True}, "outside": {}}
        found["configs"] = {"proxy": {"content": proxy.configuration(service, service.name, DOCKER_RESOLVER)}}
    if service.monitoring:
        _add_monitoring(found, service)
    return found


def _add_monitoring(found: dict[str, Any], service: Service) -> None:
    """Prometheus and Grafana beside the server, both on loopback; Grafana shows, and has no account to log in with."""
    inside = {"networks": ["inside", "outside"]} if service.proxy else {}  # without: the file's own network
    chips = f"host.docker.internal:{monitoring.EXPORTER_PORT}"
    server = f"{service.name}:{CONTAINER_PORT}"
    found["services"]["prometheus"] = {
        "image": service.monitoring.prometheus_image,
        "restart": "unless-stopped",
        **CONFINED,
        **inside,
        "ports": [f"127.0.0.1:{PROMETHEUS_PORT}:{PROMETHEUS_PORT}"],
        "extra_hosts": ["host.docker.internal:host-gateway"],  # where npu-exporter or `ascend top --export` listens
        "volumes": [{"type": "volume", "source": "prometheus", "target": "/prometheus"}],
        "configs": [
            {"source": "prometheus", "target": "/etc/prometheus/prometheus.yml"},
            {"source": "rules", "target": RULE_FILE},
        ],
    }
    found["services"]["grafana"] = {
        "image": service.monitoring.grafana_image,
        "restart": "unless-stopped",
        **CONFINED,
        "tmpfs": ["/tmp"],
        **inside,
        "ports": [f"127.0.0.1:{GRAFANA_PORT}:{GRAFANA_PORT}"],
        "volumes": [{"type": "volume", "source": "grafana", "target": "/var/lib/grafana"}],
        "environment": VIEWER_ONLY,
        "configs": [
            {"source": "datasource", "target": "/etc/grafana/provisioning/datasources/ascend.yaml"},
            {"source": "provider", "target": "/etc/grafana/provisioning/dashboards/ascend.yaml"},
            {"source": "dashboard", "target": f"{DASHBOARDS}/ascend.json"},
        ],
    }
    contents = {
        "prometheus": document.dump([monitoring.configuration(server, chips, RULE_FILE)], []),
        "rules": document.dump([monitoring.rules()], []),
        "datasource": document.dump([monitoring.datasource(f"http://prometheus:{PROMETHEUS_PORT}")], []),
        "provider": document.dump([monitoring.provider(DASHBOARDS)], []),
        "dashboard": json.dumps(dashboard(), indent=1) + "\n",
    }
    found.setdefault("configs", {}).update({name: {"content": text} for name, text in contents.items()})
    found["volumes"] = {"prometheus": {}, "grafana": {}}


def _server(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = {"image": service.image.reference}
    if service.image.is_own:
        found["pull_policy"] = "never"  # it is built here; a registry's image of the same name is another one
    found |= {"init": True, "restart": "unless-stopped", "stop_grace_period": "60s"}
    if service.user:
        found["user"] = f"{service.user}:{service.user}"
    else:  # the device nodes' group: root without capabilities obeys their mode too
        found["group_add"] = [str(USER)]
    found |= CONFINED | {"pids_limit": 4096, "working_dir": "/tmp", "tmpfs": ["/tmp:exec,mode=1777,size=8g"]}
    found["shm_size"] = f"{service.shm_gib}gb"
    if service.proxy:
        found["networks"] = ["inside"] if service.model_dir else ["inside", "outside"]
    else:
        found["ports"] = [f"127.0.0.1:{service.port}:{CONTAINER_PORT}"]
    if service.runtime == "ascend":
        found["runtime"] = "ascend"
    else:
        found["devices"] = [f"{node}:{node}" for node in service.device_nodes]
    found["volumes"] = _volumes(service)
    found["secrets"] = ["vllm_api_key"]
    visible = {"ASCEND_VISIBLE_DEVICES": service.visible_devices} if service.runtime == "ascend" else {}
    found["environment"] = visible | service.environment
    found["command"] = ["/bin/bash", "-c", start_with_key(KEY_FILE), "--", *service.serve_command]
    health = ["CMD", "curl", "-fsS", f"http://127.0.0.1:{CONTAINER_PORT}/health"]
    found["healthcheck"] = {"test": health, "interval": "30s", "timeout": "5s", "start_period": "900s"}
    return found


def _volumes(service: Service) -> list[dict[str, Any]]:
    """In the long form: a path may hold a colon. What is missing on the host is an error, not an empty folder."""

    def bind(source: str, target: str, read_only: bool) -> dict[str, Any]:
        mount: dict[str, Any] = {"type": "bind", "source": source, "target": target}
        return mount | ({"read_only": True} if read_only else {}) | {"bind": {"create_host_path": False}}

    driver = [] if service.runtime == "ascend" else service.driver_mounts
    mounts = [bind(path, mounted_at(path), True) for path in driver]
    if service.model_dir:
        return [*mounts, bind(service.model_dir, service.model_dir, True)]
    return [*mounts, bind(HOST_CACHE, CACHE, False)]


def _proxy(service: Service) -> dict[str, Any]:
    return {
        "image": service.proxy_image,
        "restart": "unless-stopped",
        **CONFINED,
        "tmpfs": ["/tmp"],
        "depends_on": [service.name],
        "networks": ["inside", "outside"],
        "ports": [f"127.0.0.1:{service.port}:{proxy.PORT}"],
        "configs": [{"source": "proxy", "target": "/etc/nginx/conf.d/default.conf"}],
    }
