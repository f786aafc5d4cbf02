"""Kubernetes manifests as data: a Deployment, or several nodes by LeaderWorkerSet or KubeRay, with what they need."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ascend_cli.deploy import document, monitoring, proxy
from ascend_cli.deploy.dashboard import dashboard
from ascend_cli.deploy.host_files import HCCN_CONF, HCCN_TOOL, mounted_at
from ascend_cli.deploy.service import CACHE, CONTAINER_PORT, USER, Service
from ascend_cli.deploy.start import CHECK_KEY, serve_line
from ascend_facts.chips import ChipSpec

OPERATOR = "monitoring.coreos.com/v1"
JOIN = 'export HCCL_IF_IP="$(hostname -i)" GLOO_SOCKET_IFNAME=eth0 HCCL_SOCKET_IFNAME=eth0'
MONITORING_NAMESPACE = "monitoring"  # where the Prometheus operator's own stack runs, unless it was put elsewhere
LONG_START_S = 1800  # half an hour: the weights are read, the graphs captured


@dataclass(frozen=True)
class Cluster:
    """What a manifest must know of the cluster."""

    flavor: str
    namespace: str
    nodes: int = 1
    multi_node: str = ""  # lws or ray
    scheduler: str = ""  # empty is the cluster's own

    def resource(self, chip: ChipSpec) -> str:
        """The name under which the device plugin counts chips. HAMi has one a chip of 910B, the others one a family.

        Source: HAMi's ascend-device-configmap.yaml.
        """
        if self.flavor == "hami" and chip.family == "910b":
            is_large = chip.name == "910B4" and chip.memory_mib[0] > 48 << 10
            return f"huawei.com/Ascend{chip.name}{'-1' if is_large else ''}"
        return chip.kubernetes_resources[self.flavor]

    def pod_labels(self, chip: ChipSpec) -> dict[str, str]:
        """By which MindCluster's device plugin and its Volcano plugin know a pod of theirs, and its chips."""
        if self.flavor != "mindcluster" or self.scheduler != "volcano":
            return {}
        names = {"310p": "ascend-310P", "950": "ascend-npu"}
        return {"ring-controller.atlas": names.get(chip.family, "ascend-910b")}

    def node_labels(self, chip: ChipSpec) -> dict[str, str]:
        """MindCluster labels nodes by product; the other device plugins select by resource alone."""
        if self.flavor != "mindcluster":
            return {}
        names = {"310p": "huawei-Ascend310P", "950": "huawei-npu"}
        return {"accelerator": names.get(chip.family, "huawei-Ascend910")}


def render(service: Service, cluster: Cluster, comments: list[str]) -> str:
    """Manifests for one node, or for several with LeaderWorkerSet or KubeRay."""
    secret = f"kubectl -n {cluster.namespace} create secret generic {service.name}-api-key"
    head = [*comments, f'Once: {secret} --from-literal=api-key="$(openssl rand -hex 32)"']
    if cluster.nodes > 1:
        head.append(
            f"{cluster.nodes} nodes of {service.ranks} chips, joined by Ray: tensor parallel inside a node, "
            "pipeline parallel between nodes."
        )
    if service.monitoring:
        head.append(
            "Monitoring needs the Prometheus operator, its stack in the namespace "
            f"{MONITORING_NAMESPACE}, and MindCluster's npu-exporter for the chips."
        )
    main = {"lws": _leader_worker_set, "ray": _ray_cluster}.get(cluster.multi_node, _deployment)
    selector = _labels(service) | ({"role": "leader"} if cluster.nodes > 1 else {})
    return document.dump([main(service, cluster), *_surroundings(service, cluster, selector)], head)


def _labels(service: Service) -> dict[str, str]:
    return {"app.kubernetes.io/name": service.name}


def _metadata(service: Service, cluster: Cluster, suffix: str = "") -> dict[str, Any]:
    return {"name": f"{service.name}{suffix}", "namespace": cluster.namespace}


def _deployment(service: Service, cluster: Cluster) -> dict[str, Any]:
    command = f"{CHECK_KEY}\n{serve_line(service.serve_arguments)}"
    labels = _labels(service) | cluster.pod_labels(service.chip)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(service, cluster) | {"labels": labels},
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},  # a chip serves one container: the old pod must go first
            "selector": {"matchLabels": _labels(service)},
            "template": {"metadata": {"labels": labels}, "spec": _pod(service, cluster, command)},
        },
    }


def _template(service: Service, cluster: Cluster, command: str, is_worker: bool) -> dict[str, Any]:
    labels = _labels(service) | {"role": "worker" if is_worker else "leader"} | cluster.pod_labels(service.chip)
    return {"metadata": {"labels": labels}, "spec": _pod(service, cluster, command, is_worker)}


def _lead(service: Service, cluster: Cluster, start_ray: str) -> str:
    wait = f"until [ \"$(ray status 2>/dev/null | grep -c '^ 1 node_')\" -ge {cluster.nodes} ]; do sleep 5; done"
    more = ["--pipeline-parallel-size", str(cluster.nodes), "--distributed-executor-backend", "ray"]
    return "\n".join([CHECK_KEY, JOIN, start_ray, wait, serve_line(service.serve_arguments, more)])


def _leader_worker_set(service: Service, cluster: Cluster) -> dict[str, Any]:
    resources = f"--resources='{{\"NPU\": {service.ranks}}}'"
    leader = _lead(service, cluster, f"ray start --head --port=6379 {resources}")
    worker = f'{JOIN}\nexec ray start --address="$LWS_LEADER_ADDRESS:6379" {resources} --block'
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": _metadata(service, cluster),
        "spec": {
            "replicas": 1,
            "leaderWorkerTemplate": {
                "size": cluster.nodes,
                "restartPolicy": "RecreateGroupOnPodRestart",  # a lost rank stops the engine: start the group anew
                "leaderTemplate": _template(service, cluster, leader, is_worker=False),
                "workerTemplate": _template(service, cluster, worker, is_worker=True),
            },
        },
    }


def _ray_cluster(service: Service, cluster: Cluster) -> dict[str, Any]:
    resources = {"resources": f'"{{\\"NPU\\": {service.ranks}}}"'}  # Ray counts only GPUs itself
    leader = _lead(service, cluster, 'eval "$KUBERAY_GEN_RAY_START_CMD" &')
    workers = cluster.nodes - 1
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": _metadata(service, cluster),
        "spec": {
            "headGroupSpec": {
                "rayStartParams": resources,
                "template": _template(service, cluster, leader, is_worker=False),
            },
            "workerGroupSpecs": [
                {
                    "groupName": "workers",
                    "replicas": workers,
                    "minReplicas": workers,
                    "maxReplicas": workers,
                    "rayStartParams": resources,
                    "template": _template(
                        service, cluster, f'{JOIN}\neval "$KUBERAY_GEN_RAY_START_CMD"', is_worker=True
                    ),
                }
            ],
        },
    }


def _pod(service: Service, cluster: Cluster, command: str, is_worker: bool = False) -> dict[str, Any]:
    identity: dict[str, Any] = {"supplementalGroups": [USER]}
    if service.user:
        identity = {"runAsNonRoot": True}
        identity |= dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), service.user)
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # a Service named vllm would set VLLM_PORT=tcp://..., which vLLM refuses
        "securityContext": identity | {"seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": 90,
    }
    if cluster.scheduler:
        pod["schedulerName"] = cluster.scheduler
    if labels := cluster.node_labels(service.chip):
        pod["nodeSelector"] = labels
    has_proxy = service.proxy and not is_worker
    pod["containers"] = [_server(service, cluster, command, is_worker), *([_proxy(service)] if has_proxy else [])]
    pod["volumes"] = _volumes(service, cluster, has_proxy)
    return pod


def _server(service: Service, cluster: Cluster, command: str, is_worker: bool) -> dict[str, Any]:
    resource = cluster.resource(service.chip)
    chips = {resource: service.ranks}
    container: dict[str, Any] = {
        "name": "vllm",
        "image": service.image.reference,
        "imagePullPolicy": "IfNotPresent",
        "workingDir": "/tmp",
        "args": ["/bin/bash", "-c", command],  # the image's entrypoint sets CANN's environment and runs this
        "env": _environment(service, cluster, resource, is_worker),
    }
    if not is_worker:
        health = {"httpGet": {"path": "/health", "port": "http"}}
        container["ports"] = [{"name": "http", "containerPort": CONTAINER_PORT}]
        container["startupProbe"] = health | {"periodSeconds": 10, "failureThreshold": LONG_START_S // 10}
        container["readinessProbe"] = health | {"periodSeconds": 10}
        container["livenessProbe"] = health | {"periodSeconds": 30, "timeoutSeconds": 10, "failureThreshold": 4}
    container["resources"] = {
        "requests": {"cpu": str(4 * service.ranks), "memory": f"{16 * service.ranks}Gi"} | chips,
        "limits": {"memory": f"{64 * service.ranks}Gi"} | chips,
    }
    container["securityContext"] = _confined()
    container["volumeMounts"] = _mounts(service, cluster)
    return container


def _confined() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _environment(service: Service, cluster: Cluster, resource: str, is_worker: bool) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if cluster.flavor == "mindcluster" and service.runtime == "ascend":
        path = f"metadata.annotations['{resource}']"  # written by Volcano
        found.append({"name": "ASCEND_VISIBLE_DEVICES", "valueFrom": {"fieldRef": {"fieldPath": path}}})
    if not is_worker:
        key = {"secretKeyRef": {"name": f"{service.name}-api-key", "key": "api-key"}}
        found.append({"name": "VLLM_API_KEY", "valueFrom": key})
    return [*found, *({"name": name, "value": value} for name, value in service.environment.items())]


def _driver_paths(service: Service, cluster: Cluster) -> list[str]:
    network = [HCCN_TOOL, HCCN_CONF] if cluster.nodes > 1 else []  # several servers over RoCE
    return [] if service.runtime == "ascend" else [*service.driver_mounts, *network]


def _mounts(service: Service, cluster: Cluster) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [{"name": "tmp", "mountPath": "/tmp"}, {"name": "shm", "mountPath": "/dev/shm"}]
    if service.model_dir:
        mounts.append({"name": "model", "mountPath": service.model_dir, "readOnly": True})
    else:
        mounts.append({"name": "cache", "mountPath": CACHE})
    for number, path in enumerate(_driver_paths(service, cluster)):
        mounts.append({"name": f"driver-{number}", "mountPath": mounted_at(path), "readOnly": True})
    return mounts


def _volumes(service: Service, cluster: Cluster, has_proxy: bool) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [
        {"name": "tmp", "emptyDir": {"sizeLimit": "8Gi"}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{service.shm_gib}Gi"}},
    ]
    if service.model_dir:
        volumes.append({"name": "model", "hostPath": {"path": service.model_dir, "type": "Directory"}})
    else:
        volumes.append({"name": "cache", "persistentVolumeClaim": {"claimName": f"{service.name}-cache"}})
    for number, path in enumerate(_driver_paths(service, cluster)):
        volumes.append({"name": f"driver-{number}", "hostPath": {"path": path}})
    if has_proxy:
        volumes.append({"name": "proxy-config", "configMap": {"name": f"{service.name}-proxy"}})
        volumes.append({"name": "proxy-tmp", "emptyDir": {"sizeLimit": "64Mi"}})
    return volumes


def _proxy(service: Service) -> dict[str, Any]:
    return {
        "name": "proxy",
        "image": service.proxy_image,
        "ports": [{"name": "proxy", "containerPort": proxy.PORT}],
        "securityContext": _confined() | {"runAsUser": 101},
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [
            {"name": "proxy-config", "mountPath": "/etc/nginx/conf.d", "readOnly": True},
            {"name": "proxy-tmp", "mountPath": "/tmp"},
        ],
    }


def _surroundings(service: Service, cluster: Cluster, selector: dict[str, str]) -> list[dict[str, Any]]:
    """Service, NetworkPolicy, and the claim and the proxy's configuration where they are used."""
    target = "proxy" if service.proxy else "http"
    found: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": _metadata(service, cluster),
            "spec": {
                "type": "ClusterIP",
                "selector": selector,
                "ports": [{"name": "http", "port": service.port, "targetPort": target}],
            },
        },
        _network_policy(service, cluster),
    ]
    if not service.model_dir:
        mode = "ReadWriteMany" if cluster.nodes > 1 else "ReadWriteOnce"
        spec = {"accessModes": [mode], "resources": {"requests": {"storage": "200Gi"}}}
        metadata = _metadata(service, cluster, "-cache")
        found.append({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec})
    if service.proxy:
        data = {"default.conf": proxy.configuration(service, "127.0.0.1")}
        metadata = _metadata(service, cluster, "-proxy")
        found.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    return [*found, *(_monitoring(service, cluster, selector) if service.monitoring else ())]


def _monitoring(service: Service, cluster: Cluster, selector: dict[str, str]) -> list[dict[str, Any]]:
    """For the Prometheus operator: what to scrape, the rules, and the dashboard where Grafana's sidecar looks for it.

    The chips' metrics are npu-exporter's, a DaemonSet of MindCluster's.
    """
    chips = {"matchExpressions": [{"key": "app", "operator": "In", "values": ["npu-exporter"]}]}

    def scraped(name: str, job: str, spec: dict[str, Any]) -> dict[str, Any]:
        renamed = [{"action": "replace", "targetLabel": "job", "replacement": job}]
        spec["podMetricsEndpoints"][0]["relabelings"] = renamed
        metadata = _metadata(service, cluster, f"-{name}")
        return {"apiVersion": OPERATOR, "kind": "PodMonitor", "metadata": metadata, "spec": spec}

    interval = f"{monitoring.SCRAPE_S}s"
    server = {"selector": {"matchLabels": selector}, "podMetricsEndpoints": [{"port": "http", "interval": interval}]}
    exporter = {
        "selector": chips,
        "namespaceSelector": {"any": True},
        "podMetricsEndpoints": [{"targetPort": monitoring.EXPORTER_PORT, "interval": interval}],
    }
    board = _metadata(service, cluster, "-dashboard") | {"labels": {"grafana_dashboard": "1"}}
    return [
        scraped("server", monitoring.SERVER_JOB, server),
        scraped("chips", monitoring.CHIP_JOB, exporter),
        {
            "apiVersion": OPERATOR,
            "kind": "PrometheusRule",
            "metadata": _metadata(service, cluster, "-rules"),
            "spec": monitoring.rules(),
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": board,
            "data": {"ascend.json": json.dumps(dashboard(), indent=1) + "\n"},
        },
    ]


def _network_policy(service: Service, cluster: Cluster) -> dict[str, Any]:
    """Nothing reaches the server but pods that carry the client label; it reaches out for weights only."""
    own = {"podSelector": {"matchLabels": _labels(service)}}
    port = proxy.PORT if service.proxy else CONTAINER_PORT
    egress: list[dict[str, Any]] = [
        {"to": [own]},
        {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]},
    ]
    if not service.model_dir:
        egress.append({"ports": [{"protocol": "TCP", "port": 443}]})
    clients = {"podSelector": {"matchLabels": {f"{service.name}-client": "true"}}}
    ingress: list[dict[str, Any]] = [
        {"from": [clients], "ports": [{"protocol": "TCP", "port": port}]},
        {"from": [own]},
    ]
    if service.monitoring:
        watcher = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": MONITORING_NAMESPACE}}}
        ingress.append({"from": [watcher], "ports": [{"protocol": "TCP", "port": CONTAINER_PORT}]})
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(service, cluster),
        "spec": {
            "podSelector": {"matchLabels": _labels(service)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        },
    }
