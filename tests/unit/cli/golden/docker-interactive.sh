# WARNING: vLLM 0.33.0 has 1 open advisories (CVE-2026-105922 ...): `ascend doctor --vllm-version 0.33.0` lists them. Keep the server behind a proxy.
# The image, once, in the root of the ascend-plugin repository: ascend deploy --target dockerfile --chip 310P3 --build .
# A key that only the server can read, made once; each step needs the one before it.
{ test -s vllm-api-key || (umask 077 && openssl rand -hex 32 > vllm-api-key); } &&
sudo chown 1000:1000 vllm-api-key &&
docker run --rm -it \
  --name vllm-ascend --init --stop-timeout 60 \
  --pull never \
  --user 1000:1000 \
  --cap-drop ALL --security-opt no-new-privileges --pids-limit 4096 \
  --read-only --tmpfs /tmp:exec,mode=1777,size=8g --workdir /tmp \
  --shm-size 4g \
  --publish 127.0.0.1:8000:8000 \
  --device /dev/davinci0 \
  --device /dev/davinci_manager \
  --device /dev/devmm_svm \
  --device /dev/hisi_hdc \
  --volume /usr/local/dcmi:/usr/local/dcmi:ro \
  --volume /usr/local/bin/npu-smi:/usr/local/bin/npu-smi:ro \
  --volume /usr/local/Ascend/driver/lib64/:/usr/local/Ascend/driver/lib64/:ro \
  --volume /usr/local/Ascend/driver/version.info:/usr/local/Ascend/driver/version.info:ro \
  --volume /etc/ascend_install.info:/etc/ascend_install.info:ro \
  --volume /data/qwen3-8b:/data/qwen3-8b:ro \
  --volume "$(realpath vllm-api-key)":/run/secrets/vllm_api_key:ro \
  --env HOME=/tmp \
  --env ASCEND_PROCESS_LOG_PATH=/tmp/ascend-log \
  --env VLLM_CACHE_ROOT=/tmp/vllm \
  --env HF_HUB_OFFLINE=1 \
  --env TRANSFORMERS_OFFLINE=1 \
  --health-cmd 'curl -fsS http://127.0.0.1:8000/health' \
  --health-interval 30s --health-timeout 5s --health-start-period 900s \
  ascend-plugin:VERSION-310p bash

# then, inside:
/bin/bash -c 'key="$(cat /run/secrets/vllm_api_key)" && [ -n "${key//[[:space:]]/}" ] || { echo "no API key in /run/secrets/vllm_api_key: make it, readable for uid $(id -u), and start again" >&2; exit 1; }; VLLM_API_KEY="$key" exec "$@"' -- vllm serve \
  --model /data/qwen3-8b \
  --served-model-name qwen3-8b \
  --enable-auto-tool-choice \
  --tool-call-parser hermes \
  --reasoning-parser qwen3 \
  --tensor-parallel-size 1 \
  --host 0.0.0.0 \
  --port 8000 \
  --max-model-len 40960 \
  --max-num-seqs 64 \
  --disable-fastapi-docs \
  --middleware ascend_plugin.service.limits.Limits
