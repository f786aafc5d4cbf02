"""vLLM's own tests, those of allowed.yaml, run against this plugin by `python -m tests.vllm_suite SDIST`."""
