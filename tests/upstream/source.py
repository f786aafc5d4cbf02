"""Source of vLLM as text: names are looked up in its files, nothing of it is imported or run."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path


class Missing(LookupError):
    """The installed release has no such name; the message says where it was looked for."""


@dataclass(frozen=True)
class Source:
    """A function, method or class where it is defined."""

    path: Path
    line: int
    signature: str  # of a function; of a class its bases
    digest: str  # of its code without comments, documentation strings and layout

    @property
    def place(self) -> str:
        return f"{self.path}:{self.line}"


@cache
def file_of(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def split(name: str) -> tuple[str, list[str]]:
    """The longest prefix of a dotted name that is a module, and the names inside it. Raises Missing."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        if parts[0] and file_of(".".join(parts[:count])) is not None:
            return ".".join(parts[:count]), parts[count:]
    raise Missing(f"{name}: there is no module {parts[0]}")


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def definition(name: str) -> tuple[Path, ast.AST]:
    """The file and node of a name; an import of it is followed. Raises Missing."""
    module, inside = split(name)
    path = file_of(module)
    assert path is not None
    node: ast.AST = tree_of(path)
    for index, part in enumerate(inside):
        found = _member(node, part)
        if found is None:
            brought = _through_stars(module, path, node, inside[index:])
            if brought is not None:
                return brought
            raise Missing(f"{name}: {path} has no {'.'.join(inside[: index + 1])}")
        if isinstance(found, ast.ImportFrom):
            alias = next(alias for alias in found.names if (alias.asname or alias.name) == part)
            origin = _absolute(module, path, found)
            return definition(".".join([origin, alias.name, *inside[index + 1 :]]))
        node = found
    return path, node


def _through_stars(module: str, path: Path, node: ast.AST, inside: list[str]) -> tuple[Path, ast.AST] | None:
    """What `from x import *` brings into a module."""
    for child in getattr(node, "body", []):
        if isinstance(child, ast.ImportFrom) and child.names[0].name == "*":
            try:
                return definition(".".join([_absolute(module, path, child), *inside]))
            except Missing:
                continue
    return None


def _absolute(module: str, path: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    base = package[: len(package) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def _member(node: ast.AST, name: str) -> ast.AST | None:
    """The last definition, assignment or import of a name directly in a module or class, branches included."""
    found = None
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            matches = child.name == name
        elif isinstance(child, ast.Assign):
            matches = any(isinstance(target, ast.Name) and target.id == name for target in child.targets)
        elif isinstance(child, ast.AnnAssign):
            matches = isinstance(child.target, ast.Name) and child.target.id == name
        elif isinstance(child, ast.ImportFrom):
            matches = any((alias.asname or alias.name) == name for alias in child.names)
        elif isinstance(child, ast.If | ast.Try | ast.With):
            inner = _member(child, name)
            found, matches = (inner or found), False
        else:
            matches = False
        if matches:
            found = child
    return found


def look_up(name: str) -> Source:
    """Raises Missing."""
    path, node = definition(name)
    if isinstance(node, ast.ClassDef):
        signature = f"({', '.join(map(ast.unparse, node.bases))})"
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        signature = f"({ast.unparse(node.args)})"
    else:
        signature = ast.unparse(node)[:200] if not isinstance(node, ast.Module) else ""
    code = ast.dump(_without_documentation(node))
    return Source(path, getattr(node, "lineno", 1), signature, hashlib.sha256(code.encode()).hexdigest()[:16])


def _without_documentation(node: ast.AST) -> ast.AST:
    copy = ast.parse(ast.unparse(node))
    for inner in ast.walk(copy):
        body = getattr(inner, "body", None)
        if isinstance(inner, (*Definition.__args__, ast.Module)) and isinstance(body, list):  # type: ignore[attr-defined]
            statements = [part for part in body if not _is_text(part)]
            inner.body = statements or [ast.Pass()]  # type: ignore[attr-defined]
    return copy


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def text_of(name: str) -> str:
    """The code of a name, without comments and documentation strings. Raises Missing."""
    return ast.unparse(_without_documentation(definition(name)[1]))
