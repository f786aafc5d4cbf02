"""A compose file as data: the server, closed, and a proxy in front of it."""

from __future__ import annotations

from typing import Any

from ascend_cli.deploy import document, proxy
from ascend_cli.deploy.service import CACHE, CONTAINER_PORT, HOST_CACHE, USER, Service
from ascend_cli.deploy.start import KEY_FILE, start_with_key

CONFINED: dict[str, Any] = {"cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"], "read_only": True}
DOCKER_RESOLVER = "127.0.0.11"  # Docker's own, inside its networks


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
    return found


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

    mounts = [] if service.runtime == "ascend" else [bind(path, path, True) for path in service.driver_mounts]
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
