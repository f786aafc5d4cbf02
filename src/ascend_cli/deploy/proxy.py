"""The proxy in front of a server: what clients of the served task need, and nothing else.

vLLM checks its key on /v1 only; /tokenize, /invocations, /pause and others stay open. So the proxy lets through paths
of /v1 (and brings /rerank and /score there), the health check, and /metrics where only this machine can ask.
"""

from __future__ import annotations

from ascend_cli.deploy.service import CONTAINER_PORT, Service

PORT = 8080
BODY_LIMIT = "48m"  # a few photographs in base64; a million tokens of text are 4 MB
GENERATION = ("v1/chat/completions", "v1/completions")
POOLING = ("v1/embeddings", "v1/rerank", "v1/score")
POOLING_FLAGS = ("--runner", "--convert", "--task")
GENERATING = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")
TRANSCRIBING = ("Whisper", "Voxtral", "Qwen3ASR", "Qwen2Audio")


def paths(service: Service) -> list[str]:
    """What the served task needs. A model whose task its architecture does not tell gets the paths of both."""
    architecture = str(next(iter(service.model.config.get("architectures") or [""]), ""))
    generates = architecture.endswith(GENERATING)
    pools = not generates or any(flag in service.serve_arguments for flag in POOLING_FLAGS)
    found = ["v1/models"]
    if generates or not architecture:
        found += GENERATION
    if architecture.startswith(TRANSCRIBING):
        found += ["v1/audio/transcriptions", "v1/audio/translations"]
    return [*found, *(POOLING if pools else ())]


def configuration(service: Service, upstream: str, resolver: str = "") -> str:
    """nginx's server block. `resolver` asks for the upstream's address anew, so that a recreated server is found."""
    allowed = paths(service)
    address = f"http://{upstream}:{CONTAINER_PORT}"
    aliases = [path.removeprefix("v1/") for path in allowed if path in ("v1/rerank", "v1/score")]
    lines = ["server {", f"  listen {PORT};", f"  client_max_body_size {BODY_LIMIT};"]
    lines += ["  large_client_header_buffers 4 8k;", "  proxy_request_buffering off;", "  proxy_http_version 1.1;"]
    lines += ['  proxy_set_header Connection "";', '  proxy_set_header X-Request-Id "";', "  proxy_buffering off;"]
    lines += ["  proxy_read_timeout 600s;"]
    if resolver:
        lines += [f"  resolver {resolver} valid=10s ipv6=off;"]
    lines += [f"  set $server {address};"]
    pattern = "|".join(("health", *allowed))
    lines += [f"  location ~ ^/({pattern})$ {{", "    proxy_pass $server;", "  }"]
    if aliases:  # clients of rerankers ask without /v1, where vLLM would check no key
        lines += [f"  location ~ ^/({'|'.join(aliases)})$ {{", "    rewrite ^/(.*)$ /v1/$1 break;"]
        lines += ["    proxy_pass $server;", "  }"]
    lines += ["  location = /metrics {"]
    if not resolver:  # in a pod, other pods reach the proxy: `kubectl port-forward` comes from loopback
        lines += ["    allow 127.0.0.1;", "    allow ::1;", "    deny all;"]
    lines += ["    proxy_pass $server;", "  }", "  location / {", "    return 404;", "  }", "}"]
    return "\n".join(lines) + "\n"
