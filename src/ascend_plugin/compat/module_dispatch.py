"""Shorter ways through nn.Module for a loaded model, whose decode steps without graphs are bound by the host.

Reason: a decoder layer reads some twenty submodules and calls a dozen. nn.Module looks each submodule up in a fallback
of attribute access (1.1 us against 0.1, CPython 3.11 on an emulating host), and each call passes two frames and nine
checks (1.8 us against 0.4).
Upstream: torch/nn/modules/module.py Module.__getattr__, _wrapped_call_impl, _call_impl.
Held by: tests/unit/plugin/test_module_dispatch.py, tests/upstream/test_patches.py.
Exit: when torch's own way costs no more than this one, or every step is a graph.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import nn
from torch.nn.modules import module as torch_module


def apply(model: nn.Module) -> None:
    """Make submodules plain attributes and calls direct, in every module of a model. Hooks keep working.

    Setting an attribute still replaces a submodule, as nn.Module.__setattr__ takes the plain attribute away first.
    Classes stay as they are: a module gets a subclass of its own class, with the same name.
    """
    from vllm.model_executor.custom_op import CustomOp

    for module in list(model.modules()):
        absent = {name: None for name, parameter in module._parameters.items() if parameter is None}
        module.__dict__.update({name: child for name, child in module._modules.items() if child is not None} | absent)
        if isinstance(module, CustomOp) and type(module).forward is CustomOp.forward:
            module.__dict__["forward"] = module._forward_method  # chosen for good when the module was made
        if type(module).__call__ is nn.Module.__call__:
            module.__class__ = _called_directly(type(module))  # type: ignore[arg-type]  # a class has a hash, which Module hides


@cache
def _called_directly(kind: type[nn.Module]) -> type[nn.Module]:
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind,), names | {"__call__": _call})


def _call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """nn.Module.__call__ for inference: neither tracing nor gradients, and the ordinary way if there is a hook."""
    if (
        module._forward_hooks
        or module._forward_pre_hooks
        or torch_module._global_forward_hooks
        or torch_module._global_forward_pre_hooks
    ):
        return module._wrapped_call_impl(*args, **kwargs)
    return module.forward(*args, **kwargs)
