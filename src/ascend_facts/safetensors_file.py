"""The header of a safetensors file: which tensors the file holds, and where. No weight is read.

Format: https://huggingface.co/docs/safetensors (eight bytes of length, then JSON, then the tensors' bytes).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LARGEST_HEADER_BYTES = 100 << 20  # the format's own limit
INDEX = "model.safetensors.index.json"  # of a checkpoint of several files: the file of each tensor
LFS = b"version https://git-lfs"
AGAIN = "download it again"
METADATA = "__metadata__"
LENGTH_BYTES = 8
BITS_OF_DTYPE = {"F64": 64, "I64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16}
BITS_OF_DTYPE |= {"F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I8": 8, "U8": 8, "BOOL": 8, "F4": 4}


class BrokenCheckpoint(ValueError):
    """The message names the file, the tensor where there is one, and what to do."""


class BrokenFile(BrokenCheckpoint):
    """A file without a header that can be read; `problem` says why without naming the file."""

    def __init__(self, file: Path, problem: str, remedy: str = AGAIN) -> None:
        super().__init__(f"{file} {problem}: {remedy}")
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of its tensors; nothing in the entries is checked."""

    document: Mapping[str, Any]
    data_start: int  # bytes before the tensors
    size_bytes: int  # of the file

    @property
    def entries(self) -> Iterator[tuple[str, Any]]:
        return ((name, entry) for name, entry in self.document.items() if name != METADATA)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def read_header(file: Path) -> Header:
    """Raises BrokenFile."""
    try:
        if not file.is_file():
            raise BrokenFile(file, "is a folder" if file.is_dir() else "is missing, or not a file")
        size_bytes = file.stat().st_size
        with file.open("rb") as content:
            start = content.read(max(LENGTH_BYTES, len(LFS)))
            if start.startswith(LFS):
                raise BrokenFile(file, "is a pointer of Git LFS", "run `git lfs pull` in its folder")
            length = struct.unpack("<Q", start[:LENGTH_BYTES])[0] if len(start) >= LENGTH_BYTES else 0
            if not 2 <= length <= min(LARGEST_HEADER_BYTES, size_bytes - LENGTH_BYTES):
                raise BrokenFile(file, "is no safetensors file, or is cut short")
            content.seek(LENGTH_BYTES)
            document = json.loads(content.read(length), object_pairs_hook=_without_doubles)
    except OSError as error:
        raise BrokenFile(file, f"cannot be read ({error.strerror})", f"mend that, or {AGAIN}") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, BrokenFile):
            raise
        raise BrokenFile(file, "has a broken header") from error
    if not isinstance(document, dict):
        raise BrokenFile(file, "has a header that is no object")
    metadata = document.get(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise BrokenFile(file, "has metadata that are no texts")
    return Header(document, LENGTH_BYTES + length, size_bytes)
