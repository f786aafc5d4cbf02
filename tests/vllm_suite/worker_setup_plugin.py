"""A pytest plugin that prepares the test process as vLLM prepares a worker before it runs a model."""


def pytest_configure() -> None:
    from vllm.platforms import current_platform

    from ascend_plugin import compat

    current_platform.register_triton_kernel_overrides()
    compat.prepare_worker_process()
