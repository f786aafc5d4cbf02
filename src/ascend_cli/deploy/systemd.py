"""A systemd unit for a host without containers: `ascend serve`, kept running, with its key as a credential."""

from __future__ import annotations

from ascend_cli.deploy.service import Service

CANN = "/usr/local/Ascend/ascend-toolkit/set_env.sh"
NNAL = "/usr/local/Ascend/nnal/atb/set_env.sh"
START = f'source {CANN}; [ ! -f {NNAL} ] || source {NNAL}; exec "$@"'
USER_NAME = "HwHiAiUser"  # the driver's user, whom the device nodes belong to


def quoted(word: str) -> str:
    """A word of ExecStart=: systemd reads %, $, backslashes and quotes."""
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"'


def render(service: Service, ascend: str, comments: list[str]) -> str:
    """The unit: systemd starts no service whose credential is missing, and `ascend serve` none with an empty one."""
    key = f"/etc/{service.name}/api-key"
    flags = ["--host", "127.0.0.1", "--port", str(service.port)]
    skipped = {"--model", "--host", "--port", "--middleware"}  # `ascend serve` has its own
    words = list(service.serve_arguments)
    while words:
        word = words.pop(0)
        if word in skipped:
            words.pop(0)
        else:
            flags.append(word)
    command = ["/bin/bash", "-c", START, "--", ascend, "serve", service.model_argument, "--api-key-file"]
    words = [*map(quoted, command), "${CREDENTIALS_DIRECTORY}/api-key", *map(quoted, ["--", *flags])]
    head = [
        *comments,
        f"Once: sudo install -d -m 0700 /etc/{service.name} && openssl rand -hex 32 | sudo tee {key} > /dev/null && "
        f"sudo chmod 600 {key}",
        f"Then: this file as /etc/systemd/system/{service.name}.service; sudo systemctl enable --now {service.name}",
    ]
    lines = [
        *(f"# {line}" for line in head),
        "[Unit]",
        f"Description=vLLM with Ascend Plugin ({service.name})",
        "After=network-online.target",
        "Wants=network-online.target",
        "",
        "[Service]",
        f"User={USER_NAME}",
        f"LoadCredential=api-key:{key}",
        f"Environment=ASCEND_RT_VISIBLE_DEVICES={','.join(map(str, service.devices))} XDG_CACHE_HOME=%C/{service.name}",
        *(f"Environment={quoted(f'{name}={value}')}" for name, value in _environment(service).items()),
        f"CacheDirectory={service.name}",
        f"ExecStart={' '.join(words)}",
        "Restart=on-failure",
        "RestartSec=10",
        "TimeoutStopSec=90",
        "KillMode=mixed",
        "NoNewPrivileges=yes",
        "PrivateTmp=yes",
        "ProtectSystem=strict",
        "ProtectHome=read-only",
        "CapabilityBoundingSet=",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


def _environment(service: Service) -> dict[str, str]:
    """What the service is given, less what belongs to a container's folders."""
    of_containers = ("HOME", "ASCEND_PROCESS_LOG_PATH", "VLLM_CACHE_ROOT", "HF_HOME", "MODELSCOPE_CACHE")
    return {name: value for name, value in service.environment.items() if name not in of_containers}
