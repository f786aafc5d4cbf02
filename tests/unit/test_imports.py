"""The import graph of src/: no circles, and what the facts may import."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SRC = Path(__file__).resolve().parents[2] / "src"
PATHS = {
    ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__"): path for path in SRC.rglob("*.py")
}


def imports_of(module: str, tree: ast.AST) -> Iterator[str]:
    """Modules of src/ that this one imports, functions' imports included, those for the type checker left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in PATHS)
        elif isinstance(node, ast.ImportFrom) and node.module in PATHS:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in PATHS else node.module for name in names)
        yield from imports_of(module, node)


def graph() -> dict[str, set[str]]:
    return {name: set(imports_of(name, ast.parse(path.read_text()))) - {name} for name, path in PATHS.items()}


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one module (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in edges[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            position = stack.index(name)
            component = stack[position:]
            del stack[position:]
            if len(component) > 1:
                found.append(sorted(component))

    for name in edges:
        if name not in index:
            visit(name)
    return found


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}) == [["a", "b", "c"]]


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert circles(graph()) == []


def package(module: str) -> str:
    """A package under ascend_plugin or ascend_cli, or the module itself where it lies directly in one of them."""
    return ".".join(module.split(".")[:2])


def test_no_package_imports_itself_by_way_of_others() -> None:
    edges: dict[str, set[str]] = {}
    for module, imported in graph().items():
        edges.setdefault(package(module), set()).update(package(other) for other in imported)
    for name, others in edges.items():
        others.discard(name)
    assert circles(edges) == []


def test_facts_depend_on_nobody() -> None:
    for module, imported in graph().items():
        if module.startswith("ascend_facts"):
            assert all(other.startswith("ascend_facts") for other in imported), module


HEAVY = ("torch", "torch_npu", "vllm", "numpy", "transformers", "pydantic", "ascend_plugin", "ascend_cli")


def test_facts_import_nothing_heavy() -> None:
    """In a process in which an import of one of HEAVY fails."""
    modules = [name for name in PATHS if name.startswith("ascend_facts")]
    script = f"import sys, importlib\nsys.modules.update(dict.fromkeys({HEAVY!r}))\n"
    script += f"for name in {modules!r}: importlib.import_module(name)\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_plugin_imports_no_command_and_no_command_the_plugin() -> None:
    """The command line and the plugin share ascend_facts; what needs torch is imported where a device is."""
    for module, imported in graph().items():
        if module.startswith("ascend_plugin"):
            assert not [other for other in imported if other.startswith("ascend_cli")], module
