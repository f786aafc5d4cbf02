# WARNING: quay.io/ascend/vllm-ascend:v0.23.0 has no user 1000, so the container runs as root: the image of `ascend deploy --target dockerfile` does not.
# WARNING: vLLM 0.23.0 has 10 open advisories (CVE-2026-73557, CVE-2026-114053, PYSEC-2026-2303, CVE-2026-116176 ...): `ascend doctor --vllm-version 0.23.0` lists them. Keep the server behind a proxy.
# A key that only the server can read, made once; each step needs the one before it.
{ test -s vllm-api-key || (umask 077 && openssl rand -hex 32 > vllm-api-key); } &&
sudo chown 0:0 vllm-api-key &&
docker run -d --restart unless-stopped \
  --name vllm-ascend --init --stop-timeout 60 \
  --group-add 1000 \
  --cap-drop ALL --security-opt no-new-privileges --pids-limit 4096 \
  --read-only --tmpfs /tmp:exec,mode=1777,size=8g --workdir /tmp \
  --shm-size 4g \
  --publish 127.0.0.1:8000:8000 \
  --device /dev/davinci0 \
  --device /dev/davinci1 \
  --device /dev/davinci_manager \
  --device /dev/devmm_svm \
  --device /dev/hisi_hdc \
  --volume /usr/local/dcmi:/usr/local/dcmi:ro \
  --volume /usr/local/bin/npu-smi:/usr/local/bin/npu-smi:ro \
  --volume /usr/local/Ascend/driver/lib64/:/usr/local/Ascend/driver/lib64/:ro \
  --volume /usr/local/Ascend/driver/version.info:/usr/local/Ascend/driver/version.info:ro \
  --volume /etc/ascend_install.info:/etc/ascend_install.info:ro \
  --volume /data/qwen3-32b:/data/qwen3-32b:ro \
  --volume "$(realpath vllm-api-key)":/run/secrets/vllm_api_key:ro \
  --env HOME=/tmp \
  --env ASCEND_PROCESS_LOG_PATH=/tmp/ascend-log \
  --env VLLM_CACHE_ROOT=/tmp/vllm \
  --env HF_HUB_OFFLINE=1 \
  --env TRANSFORMERS_OFFLINE=1 \
  --health-cmd 'curl -fsS http://127.0.0.1:8000/health' \
  --health-interval 30s --health-timeout 5s --health-start-period 900s \
  quay.io/ascend/vllm-ascend:v0.23.0 \
  /bin/bash -c 'key="$(cat /run/secrets/vllm_api_key)" && [ -n "${key//[[:space:]]/}" ] || { echo "no API key in /run/secrets/vllm_api_key: make it, readable for uid $(id -u), and start again" >&2; exit 1; }; VLLM_API_KEY="$key" exec "$@"' -- vllm serve \
  --model /data/qwen3-32b \
  --served-model-name qwen3-32b \
  --enable-auto-tool-choice \
  --tool-call-parser hermes \
  --reasoning-parser qwen3 \
  --tensor-parallel-size 2 \
  --host 0.0.0.0 \
  --port 8000 \
  --max-model-len 40960 \
  --max-num-seqs 64 \
  --disable-fastapi-docs

# Ready when this answers (the first start reads the weights, which takes minutes):
#   curl -s -H "Authorization: Bearer $(sudo cat vllm-api-key)" http://127.0.0.1:8000/v1/models
