"""CANN's C entry points as its headers declare them, for calls with arguments of the right type and any value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

# Of libnnopbase, whose header the wheel of torch_npu lacks.
DESCRIPTORS = """
aclTensor *aclCreateTensor(const int64_t *viewDims, uint64_t viewDimsNum, aclDataType dataType, const int64_t *stride,
    int64_t offset, aclFormat format, const int64_t *storageDims, uint64_t storageDimsNum, void *tensorData);
aclScalar *aclCreateScalar(void *value, aclDataType dataType);
aclIntArray *aclCreateIntArray(const int64_t *value, uint64_t size);
aclFloatArray *aclCreateFloatArray(const float *value, uint64_t size);
aclBoolArray *aclCreateBoolArray(const bool *value, uint64_t size);
aclTensorList *aclCreateTensorList(const aclTensor *const *value, uint64_t size);
aclScalarList *aclCreateScalarList(const aclScalar *const *value, uint64_t size);
aclnnStatus aclDestroyTensor(const aclTensor *tensor);
aclnnStatus aclDestroyScalar(const aclScalar *scalar);
aclnnStatus aclDestroyIntArray(const aclIntArray *array);
aclnnStatus aclDestroyFloatArray(const aclFloatArray *array);
aclnnStatus aclDestroyBoolArray(const aclBoolArray *array);
aclnnStatus aclDestroyTensorList(const aclTensorList *array);
aclnnStatus aclDestroyScalarList(const aclScalarList *array);
aclnnStatus aclGetViewShape(const aclTensor *tensor, int64_t **viewDims, uint64_t *viewDimsNum);
"""
PROTOTYPE = re.compile(r"([A-Za-z_][\w \t\n*]*?[\s*])\b((?:acl|Hccl)[A-Za-z0-9_]+)\s*\(([^()]*)\)\s*;")
NOISE = re.compile(r"/\*.*?\*/|//[^\n]*|#[^\n]*", re.DOTALL)


@dataclass(frozen=True)
class Parameter:
    type: str  # without const and blanks: "void**", "aclrtStream"; "text*" is a char* that the function writes
    name: str


@dataclass(frozen=True)
class Prototype:
    result: str
    name: str
    parameters: tuple[Parameter, ...]


def folders() -> Iterator[Path]:
    spec = find_spec("torch_npu")  # without importing it, which would load the emulator
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("Install torch_npu: its wheel has CANN's headers.")
    root = Path(spec.origin).parent / "include" / "third_party"
    yield from (root / "acl" / "inc" / "acl", root / "hccl" / "inc" / "hccl")


def plain(declaration: str) -> str:
    words = re.sub(r"\b(const|extern|ACL_FUNC_VISIBILITY|HCCL_FUNC_VISIBILITY|struct)\b", " ", declaration)
    return re.sub(r"\s+", "", words)


def parameter(text: str) -> Parameter:
    match = re.fullmatch(r"(.*?)(\w+)\s*((?:\[\w*\]\s*)*)", text.strip(), re.DOTALL)
    assert match, text
    kind, name, array = match.groups()
    written = plain(kind) == "char*" and "const" not in kind
    return Parameter("text*" if written else plain(kind) + ("*" if array else ""), name)


def parse(text: str) -> Iterator[Prototype]:
    for result, name, parameters in PROTOTYPE.findall(NOISE.sub(" ", text)):
        if "return" in result or "typedef" in result or "..." in parameters:
            continue
        split = [] if parameters.strip() in ("", "void") else parameters.split(",")
        yield Prototype(plain(result), name, tuple(parameter(each) for each in split))


def exported(names: Iterable[str]) -> dict[str, Prototype]:
    """The declared functions among `names`."""
    wanted = set(names)
    texts = [DESCRIPTORS, *(path.read_text() for folder in folders() for path in sorted(folder.glob("*.h")))]
    found: dict[str, Prototype] = {}
    for text in texts:
        for prototype in parse(text):
            if prototype.name in wanted:
                found.setdefault(prototype.name, prototype)
    return found
