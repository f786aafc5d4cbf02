# WARNING: open form: root, the host's network, no key, every interface. For a closed test network only.
# WARNING: vLLM 0.18.0rc1 has 14 open advisories (CVE-2026-27893, CVE-2026-34756, CVE-2026-41523, CVE-2026-73557 ...): `ascend doctor --vllm-version 0.18.0rc1` lists them. Keep the server behind a proxy.
docker run --rm \
--name vllm-ascend \
--network=host \
--shm-size=10g \
--device /dev/davinci0 \
--device /dev/davinci1 \
--device /dev/davinci2 \
--device /dev/davinci3 \
--device /dev/davinci_manager \
--device /dev/devmm_svm \
--device /dev/hisi_hdc \
-v /usr/local/dcmi:/usr/local/dcmi \
-v /usr/local/bin/npu-smi:/usr/local/bin/npu-smi \
-v /usr/local/Ascend/driver/lib64/:/usr/local/Ascend/driver/lib64/ \
-v /usr/local/Ascend/driver/version.info:/usr/local/Ascend/driver/version.info \
-v /etc/ascend_install.info:/etc/ascend_install.info \
-v /root/.cache:/root/.cache \
-v /root/models:/root/models \
-it quay.io/ascend/vllm-ascend:v0.18.0rc1-310p-openeuler bash

# then, inside:
vllm serve \
  --enforce-eager \
  --dtype float16 \
  --model /root/models/qwen3-32B \
  --served-model-name qwen3-32b \
  --enable-auto-tool-choice \
  --tool-call-parser hermes \
  --reasoning-parser qwen3 \
  --tensor-parallel-size 4
