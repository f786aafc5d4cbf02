"""Set up .venv-incumbent: the official vllm-ascend 0.29.0rc1 with vLLM 0.29.0, unmodified, in its 310P mode.

For side-by-side runs on the same emulated chips. Its pinned torch is 2.10; it runs here on 2.13, the version that the
emulator is built for, which every comparison states.
"""

from __future__ import annotations

import sys

from setup import EMULATOR_FILES, ROOT, Step, Venv, files, run_steps, text

INCUMBENT = Venv(ROOT / ".venv-incumbent", ROOT / "benchmarks" / "incumbent-constraints.txt")
TORCH = "2.13.0"
VLLM = "0.29.0"
VLLM_ASCEND = "vllm-ascend==0.29.0rc1"
# What it imports on a 310P: its own requirements less its torch pins, triton and the packages of other chips.
REQUIREMENTS = ["scipy", "pandas", "psutil", "numba", "msgpack", "quart", "decorator", "gguf"]
# vLLM and xgrammar drag triton in; on a 310P it must be absent (its own installation guide says so).
UNWANTED = ["triton", "torchvision", "torchaudio"]


def install_vllm_ascend() -> None:
    INCUMBENT.pip(*REQUIREMENTS)
    # Its set-up script's own switches: the chip to build for, and no AscendC kernels (they need CANN's compiler).
    environment = {"SOC_VERSION": "ascend310p3", "COMPILE_CUSTOM_KERNELS": "0"}
    source = ["--no-build-isolation", "--no-deps", "--no-binary", "vllm-ascend", VLLM_ASCEND]
    INCUMBENT.pip(*source, environment=environment)
    INCUMBENT.uninstall(*UNWANTED)


STEPS = [
    Step("venv", "virtual environment", INCUMBENT.create, text(sys.version, str(INCUMBENT.folder))),
    Step("torch", "PyTorch for CPU", lambda: INCUMBENT.install_torch(TORCH), text(TORCH)),
    Step(
        "stack",
        f"torch_npu {TORCH} and vLLM {VLLM}",
        lambda: INCUMBENT.install_vllm(VLLM),
        files("benchmarks/incumbent-constraints.txt"),
    ),
    Step("emulator", "ascend-emulator", INCUMBENT.install_emulator, EMULATOR_FILES),
    Step("vllm-ascend", VLLM_ASCEND, install_vllm_ascend, text(VLLM_ASCEND, *REQUIREMENTS)),
]

if __name__ == "__main__":
    sys.exit(run_steps(INCUMBENT, STEPS))
