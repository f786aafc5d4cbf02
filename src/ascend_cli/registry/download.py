"""Fetching a model: Hugging Face or a mirror of it through huggingface_hub, ModelScope through its own SDK.

ModelScope's SDK is `modelscope-hub` (the extra "modelscope"); where it is not installed, its HTTP interface is asked.

Both resume a broken download, show progress and leave the files where vLLM looks for them. A download is complete when
every file that the weights' index names is there in the size that its own header tells. Pickled weights are never
fetched: loading one runs code.
"""

from __future__ import annotations

import fcntl
import fnmatch
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ascend_cli.errors import NothingDone, UsageError
from ascend_cli.web import is_loopback
from ascend_facts.checkpoint import indexed_files
from ascend_facts.first_line import first_line
from ascend_facts.safetensors_file import BrokenCheckpoint, BrokenFile, read_header

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
MOST_SHARDS = 10_000  # of one model; the largest published ones have some hundreds
SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)(\.safetensors)", re.ASCII)
TIMEOUT_S = 60.0
ATTEMPTS = 5


def download(hub_id: str, hub: str, endpoint: str = "") -> Path:
    """Fetch every file of a model that serving needs; the folder that holds them comes back.

    hub is hf, hf-mirror or modelscope. Raises NothingDone if the hub does not answer or does not know the model.
    """
    if hub == "modelscope":
        folder = _from_modelscope(hub_id, _address(endpoint or os.environ.get("MODELSCOPE_ENDPOINT") or MODELSCOPE))
    else:
        given = endpoint or (MIRROR if hub == "hf-mirror" else os.environ.get("HF_ENDPOINT", ""))
        folder = _from_hugging_face(hub_id, _address(given) if given else "")
    if missing := incomplete_files(folder):
        raise NothingDone(
            f"{hub_id} is not complete after the download ({missing[0]}): run it again, or try another --hub"
        )
    return folder


def _address(endpoint: str) -> str:
    """A hub's address. Raises UsageError for one without a scheme, which no client takes."""
    if not endpoint.startswith(("http://", "https://")):
        raise UsageError(f"the hub's address {endpoint!r} has no scheme: write https://...")
    return endpoint.rstrip("/")


def _from_hugging_face(hub_id: str, endpoint: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
    except ImportError as error:
        raise UsageError("huggingface_hub is not installed: `make setup`, or --hub modelscope") from error
    import httpx

    where = endpoint or "https://huggingface.co"
    try:
        return Path(snapshot_download(hub_id, endpoint=endpoint or None, ignore_patterns=list(UNWANTED)))
    except RepositoryNotFoundError as error:
        raise UsageError(
            f"{where} has no model {hub_id}, or it needs a token: set HF_TOKEN, or check the name"
        ) from error
    except HFValidationError as error:
        raise UsageError(f"{hub_id!r} is no name of a model on {where}: write owner/name") from error
    except (HfHubHTTPError, httpx.HTTPError, httpx.InvalidURL, ImportError, OSError) as error:
        raise NothingDone(
            f"downloading {hub_id} from {where} failed ({first_line(error)}): run it again to go on, "
            "or try --hub hf-mirror or modelscope"
        ) from error


def incomplete_files(folder: Path) -> list[str]:
    """What a folder of weights lacks: files that its index or its names promise, and files cut short.

    A safetensors file says in its first bytes how long it is, so that no hash of gigabytes is needed. A folder whose
    weights are of another kind has nothing to hold them against.
    """
    wanted = {file.name for file in folder.glob("*.safetensors")}
    try:
        wanted |= indexed_files(folder)
    except BrokenCheckpoint as error:
        return [str(error)]
    for name in list(wanted):
        if shard := SHARD.fullmatch(name):
            width, digits = len(shard[2]), len(shard[3])
            last = int(shard[3]) if digits <= width else MOST_SHARDS + 1
            if last > MOST_SHARDS:
                return [f"{name[:80]} names more parts than any model has"]
            wanted |= {f"{shard[1]}-{number:0{width}d}-of-{shard[3]}{shard[4]}" for number in range(1, last + 1)}
    if not wanted:
        return ["no *.safetensors"]
    problems = ((name, _problem_of(folder / name)) for name in sorted(wanted))
    return [f"{name} {problem}" for name, problem in problems if problem]


def _problem_of(file: Path) -> str:
    """Why a safetensors file is not whole; empty if it is."""
    if not file.exists():
        return "is missing"
    try:
        header = read_header(file)
        end = header.data_start + max((entry["data_offsets"][1] for _, entry in header.entries), default=0)
        return "" if end == header.size_bytes else "is not as long as its header says"
    except BrokenFile as broken:
        return broken.problem
    except (KeyError, IndexError, TypeError):
        return "cannot be read"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    path: str
    size_bytes: int
    sha256: str | None


def _from_modelscope(hub_id: str, endpoint: str) -> Path:
    """The listing is read and judged first; then the SDK, where it is installed, fetches what it names."""
    import httpx

    folder = modelscope_folder(hub_id)
    try:
        with (
            _alone(folder, hub_id),
            httpx.Client(
                base_url=endpoint, timeout=TIMEOUT_S, follow_redirects=True, trust_env=not is_loopback(endpoint)
            ) as client,
        ):
            files = _list_modelscope(client, hub_id)
            missing = [file for file in files if not _is_here(folder / file.path, file)]
            if not missing or _by_sdk(hub_id, endpoint, folder, missing):
                return folder
            with _progress(hub_id, sum(file.size_bytes for file in missing)) as advance:
                for file in missing:
                    _fetch(client, hub_id, file, folder / file.path, advance)
    except (httpx.HTTPError, httpx.InvalidURL, ImportError, OSError) as error:
        raise NothingDone(f"downloading {hub_id} from {endpoint} failed ({error}): run it again to go on") from error
    return folder


def _is_here(local: Path, file: RemoteFile) -> bool:
    return local.is_file() and _agrees(local, file)


def _by_sdk(hub_id: str, endpoint: str, folder: Path, missing: Sequence[RemoteFile]) -> bool:
    """ModelScope's own client fetches these files, each held to the listing. False if it is not installed."""
    try:
        from modelscope_hub.compat.snapshot_download import snapshot_download
        from modelscope_hub.errors import HubError
    except ImportError:
        return False
    import requests

    names = [file.path for file in missing]
    try:
        with _without_proxy(endpoint):
            snapshot_download(hub_id, local_dir=str(folder), endpoint=endpoint, allow_patterns=names)
    except (HubError, requests.RequestException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        first = first_line(error)
        damaged = [
            file for file in missing if (folder / file.path).is_file() and not _is_here(folder / file.path, file)
        ]
        for file in damaged:
            (folder / file.path).unlink()
        why = "arrived damaged" if "mismatch" in first.lower() else first[:300]
        raise NothingDone(
            f"downloading {hub_id} from {endpoint} failed ({why}): run it again to go on, or try --hub hf"
        ) from error
    for file in missing:
        if not _is_here(folder / file.path, file):
            (folder / file.path).unlink(missing_ok=True)
            what = "SHA-256" if file.sha256 else "size"
            raise NothingDone(f"{file.path} arrived damaged (its {what} differs): run it again")
    return True


@contextmanager
def _without_proxy(endpoint: str) -> Iterator[None]:
    """The SDK reads the environment's proxies, which a hub on this machine is not behind."""
    if not is_loopback(endpoint):
        yield
        return
    before = {name: os.environ.get(name) for name in ("no_proxy", "NO_PROXY")}
    os.environ |= dict.fromkeys(before, "*")
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _alone(folder: Path, hub_id: str) -> Iterator[None]:
    """One process a folder: two would write the same partial files."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".download.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(f"another process is downloading {hub_id}: wait for it") from error
        yield


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
    try:
        return _listed(hub_id, answer.json())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NothingDone(
            f"{client.base_url} listed {hub_id} in a form that is not known here: try --hub hf"
        ) from error


def _listed(hub_id: str, body: Any) -> list[RemoteFile]:
    if not body.get("Success", body.get("Code") == 200):
        raise NothingDone(f"ModelScope refused the listing of {hub_id}: {body.get('Message', 'no reason given')}")
    entries = [entry for entry in body["Data"]["Files"] if entry.get("Type") != "tree"]
    wanted = [entry for entry in entries if not any(fnmatch.fnmatch(entry["Path"], pattern) for pattern in UNWANTED)]
    return [RemoteFile(_safe(entry["Path"]), int(entry.get("Size") or 0), entry.get("Sha256")) for entry in wanted]


def _safe(path: str) -> str:
    """A path of the listing, refused if it would leave the model's folder."""
    if path.startswith("/") or ".." in Path(path).parts:
        raise NothingDone(f"the listing names {path!r}, which is outside the model's folder: not downloaded")
    return path


def _fetch(client: Any, hub_id: str, file: RemoteFile, target: Path, advance: Any) -> None:
    """One file: continued if partial, checked against its hash."""
    import httpx

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
    if not _agrees(partial, file):
        partial.unlink(missing_ok=True)
        what = "SHA-256" if file.sha256 else "size"
        raise NothingDone(f"{file.path} arrived damaged (its {what} differs): run it again")
    partial.replace(target)


def _agrees(local: Path, file: RemoteFile) -> bool:
    """Whether a file is the listed one: by its hash, where the listing has one, and by its size.

    Shards of two revisions have equal sizes, so the size alone would let a mixture of two models pass.
    """
    if file.size_bytes and local.stat().st_size != file.size_bytes:
        return False
    return not file.sha256 or _sha256(local) == file.sha256.lower()


def _append(client: Any, hub_id: str, file: RemoteFile, partial: Path, advance: Any) -> None:
    have = partial.stat().st_size if partial.exists() else 0
    if have and have == file.size_bytes:
        return
    if file.size_bytes and have > file.size_bytes:  # of another revision
        partial.unlink()
        advance(-have)
        have = 0
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
