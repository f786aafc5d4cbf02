"""Fetching a model: Hugging Face or a mirror of it through huggingface_hub, ModelScope by its HTTP interface.

Both resume a broken download, show progress and leave the files where vLLM looks for them. Pickled weights are never
fetched: loading one runs code.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ascend_cli.errors import AscendError, UsageError

MIRROR = "https://hf-mirror.com"
MODELSCOPE = "https://www.modelscope.cn"
UNWANTED = (
    "*.bin",
    "*.pt",
    "*.pth",
    "*.ckpt",
    "*.gguf",
    "*.onnx",
    "*.h5",
    "*.msgpack",
    "original/*",
    "figures/*",
    "*.png",
    "*.jpg",
)
CHUNK_BYTES = 1 << 20
TIMEOUT_S = 60.0
ATTEMPTS = 5


def download(hub_id: str, hub: str, endpoint: str = "") -> Path:
    """Fetch every file of a model that serving needs; the folder that holds them comes back.

    hub is hf, hf-mirror or modelscope. Raises AscendError if the hub does not answer or does not know the model.
    """
    if hub == "modelscope":
        return _from_modelscope(hub_id, endpoint or os.environ.get("MODELSCOPE_ENDPOINT") or MODELSCOPE)
    return _from_hugging_face(hub_id, endpoint or (MIRROR if hub == "hf-mirror" else ""))


def _from_hugging_face(hub_id: str, endpoint: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
    except ImportError as error:
        raise UsageError("huggingface_hub is not installed: `make setup`, or --hub modelscope") from error
    import httpx

    where = endpoint or os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    try:
        return Path(snapshot_download(hub_id, endpoint=endpoint or None, ignore_patterns=list(UNWANTED)))
    except RepositoryNotFoundError as error:
        raise UsageError(
            f"{where} has no model {hub_id}, or it needs a token: set HF_TOKEN, or check the name"
        ) from error
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise AscendError(
            f"downloading {hub_id} from {where} failed ({first}): run it again to go on, "
            "or try --hub hf-mirror or modelscope"
        ) from error


@dataclass(frozen=True, slots=True)
class RemoteFile:
    path: str
    size_bytes: int
    sha256: str | None


def _from_modelscope(hub_id: str, endpoint: str) -> Path:
    """ModelScope's repository interface: a listing, then each file by path, with byte ranges for what is missing."""
    import httpx

    folder = modelscope_folder(hub_id)
    try:
        with httpx.Client(base_url=endpoint, timeout=TIMEOUT_S, follow_redirects=True) as client:
            files = _list_modelscope(client, hub_id)
            with _progress(hub_id, sum(file.size_bytes for file in files)) as advance:
                for file in files:
                    _fetch(client, hub_id, file, folder / file.path, advance)
    except httpx.HTTPError as error:
        raise AscendError(f"downloading {hub_id} from {endpoint} failed ({error}): run it again to go on") from error
    return folder


def modelscope_folder(hub_id: str) -> Path:
    cache = (
        os.environ.get("MODELSCOPE_CACHE")
        or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "modelscope"
    )
    return Path(cache) / "models" / hub_id.replace(".", "___")


def _list_modelscope(client: Any, hub_id: str) -> list[RemoteFile]:
    answer = client.get(f"/api/v1/models/{hub_id}/repo/files", params={"Revision": "master", "Recursive": "true"})
    if answer.status_code == 404:
        raise UsageError(f"ModelScope has no model {hub_id}: check the name at {client.base_url}")
    answer.raise_for_status()
    body = answer.json()
    if not body.get("Success", body.get("Code") == 200):
        raise AscendError(f"ModelScope refused the listing of {hub_id}: {body.get('Message', 'no reason given')}")
    entries = [entry for entry in body["Data"]["Files"] if entry.get("Type") != "tree"]
    wanted = [entry for entry in entries if not any(fnmatch.fnmatch(entry["Path"], pattern) for pattern in UNWANTED)]
    return [RemoteFile(_safe(entry["Path"]), int(entry.get("Size") or 0), entry.get("Sha256")) for entry in wanted]


def _safe(path: str) -> str:
    """A path of the listing, refused if it would leave the model's folder."""
    if path.startswith("/") or ".." in Path(path).parts:
        raise AscendError(f"the listing names {path!r}, which is outside the model's folder: not downloaded")
    return path


def _fetch(client: Any, hub_id: str, file: RemoteFile, target: Path, advance: Any) -> None:
    """One file: skipped if complete, continued if partial, checked against its hash."""
    import httpx

    if target.is_file() and target.stat().st_size == file.size_bytes:
        advance(file.size_bytes)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".incomplete")
    advance(partial.stat().st_size if partial.exists() else 0)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _append(client, hub_id, file, partial, advance)
            break
        except httpx.TransportError:
            if attempt == ATTEMPTS:
                raise
    if file.sha256 and _sha256(partial) != file.sha256.lower():
        partial.unlink()
        raise AscendError(f"{file.path} arrived damaged (its SHA-256 differs): run it again")
    partial.replace(target)


def _append(client: Any, hub_id: str, file: RemoteFile, partial: Path, advance: Any) -> None:
    have = partial.stat().st_size if partial.exists() else 0
    if have == file.size_bytes and partial.exists():
        return
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    query = {"Revision": "master", "FilePath": file.path}
    with client.stream("GET", f"/api/v1/models/{hub_id}/repo", params=query, headers=headers) as answer:
        answer.raise_for_status()
        resumes = answer.status_code == 206
        if have and not resumes:
            advance(-have)
        with partial.open("ab" if resumes else "wb") as output:
            for chunk in answer.iter_bytes():  # as they arrive: a larger buffer would be lost with the connection
                output.write(chunk)
                advance(len(chunk))


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while chunk := content.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _progress(title: str, total_bytes: int) -> Iterator[Any]:
    """A progress bar on standard error; yields the function that moves it."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from ascend_cli.output import console

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True)) as bar:
        task = bar.add_task(title, total=total_bytes)
        yield lambda size_bytes: bar.advance(task, size_bytes)
