"""Fetching models from local servers that speak the hubs' protocols: complete, resumed, damaged, hostile."""

from __future__ import annotations

import hashlib
import http.server
import importlib.util
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ascend_cli.errors import AscendError, UsageError
from ascend_cli.registry.download import download, incomplete_files, modelscope_folder

from .conftest import Ascend


def safetensors(body: bytes) -> bytes:
    """The least file of weights: a header that tells the length, then the values."""
    tensor = {"dtype": "U8", "shape": [len(body)], "data_offsets": [0, len(body)]}
    header = json.dumps({"__metadata__": {"format": "pt"}, "w": tensor}).encode()
    return len(header).to_bytes(8, "little") + header + body


CONTENT = {
    "config.json": b'{"model_type": "qwen3"}',
    "model.safetensors": safetensors(bytes(range(256)) * 4096),
    "pytorch_model.bin": b"pickle",
}


class ModelScope(http.server.BaseHTTPRequestHandler):
    """The two calls of ModelScope's repository interface; `cut_at` drops the connection once, `requests` records."""

    requests: ClassVar[list[tuple[str, str | None]]] = []
    cut_at: ClassVar[int | None] = None
    listed: ClassVar[dict[str, Any]] = {}
    has_hashes: ClassVar[bool] = True
    short_by: ClassVar[int] = 0  # bytes that the server keeps back, without a word

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path == "/api/v1/models/org/model.one/repo/files":
            files = [
                {"Path": path, "Type": "blob", "Size": len(body)}
                | ({"Sha256": hashlib.sha256(body).hexdigest()} if self.has_hashes else {})
                for path, body in CONTENT.items()
            ]
            return self._send(
                json.dumps({"Code": 200, "Success": True, "Data": {"Files": files} | self.listed}).encode()
            )
        if parts.path == "/api/v1/models/org/model.one/repo":
            return self._send_file(query["FilePath"])
        return self._send(b"{}", 404)

    def _send_file(self, path: str) -> None:
        body, wanted = CONTENT[path], self.headers.get("Range")
        type(self).requests.append((path, wanted))
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if self.cut_at is not None and path.endswith("safetensors"):
            cut, type(self).cut_at = self.cut_at, None
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:cut])
            self.wfile.flush()
            self.connection.close()
            return
        self._send(body[start : len(body) - self.short_by], 206 if start else 200)

    def _send(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        return


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    ModelScope.requests.clear()
    if not getattr(request, "param", None):  # these are of the way without the SDK
        monkeypatch.setattr("ascend_cli.registry.download._by_sdk", lambda *arguments: False)
    monkeypatch.setattr(ModelScope, "cut_at", None)
    monkeypatch.setattr(ModelScope, "listed", {})
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), ModelScope)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_modelscope_files_arrive_where_vllm_looks(endpoint: str, tmp_path: Path) -> None:
    folder = download("org/model.one", "modelscope", endpoint)
    assert folder == tmp_path / "modelscope/models/org/model___one" == modelscope_folder("org/model.one")
    assert (folder / "model.safetensors").read_bytes() == CONTENT["model.safetensors"]
    assert not (folder / "pytorch_model.bin").exists(), "pickles are not fetched"


def test_a_second_download_fetches_nothing(endpoint: str) -> None:
    download("org/model.one", "modelscope", endpoint)
    ModelScope.requests.clear()
    download("org/model.one", "modelscope", endpoint)
    assert ModelScope.requests == []


def test_a_broken_connection_is_resumed(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelScope, "cut_at", 300_000)
    folder = download("org/model.one", "modelscope", endpoint)
    assert (folder / "model.safetensors").read_bytes() == CONTENT["model.safetensors"]
    ranges = [wanted for path, wanted in ModelScope.requests if path == "model.safetensors"]
    assert ranges[0] is None
    assert ranges[1] is not None and ranges[1].startswith("bytes=")


def test_a_partial_file_of_an_earlier_start_is_continued(endpoint: str) -> None:
    folder = modelscope_folder("org/model.one")
    folder.mkdir(parents=True)
    (folder / "model.safetensors.incomplete").write_bytes(CONTENT["model.safetensors"][:1000])
    download("org/model.one", "modelscope", endpoint)
    assert ("model.safetensors", "bytes=1000-") in ModelScope.requests


def test_a_damaged_file_is_refused_and_removed(endpoint: str) -> None:
    folder = modelscope_folder("org/model.one")
    folder.mkdir(parents=True)
    (folder / "model.safetensors.incomplete").write_bytes(b"x" * 1000)
    with pytest.raises(AscendError, match="arrived damaged"):
        download("org/model.one", "modelscope", endpoint)
    assert not (folder / "model.safetensors").exists()
    assert download("org/model.one", "modelscope", endpoint) == folder, "the next try starts anew"


def test_a_listing_that_leaves_the_folder_is_refused(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    escape = {"Files": [{"Path": "../../etc/passwd", "Type": "blob", "Size": 1, "Sha256": None}]}
    monkeypatch.setattr(ModelScope, "listed", escape)
    with pytest.raises(AscendError, match="outside the model's folder"):
        download("org/model.one", "modelscope", endpoint)


def test_an_unknown_model_is_bad_input(endpoint: str) -> None:
    with pytest.raises(UsageError, match="ModelScope has no model"):
        download("org/other", "modelscope", endpoint)


def test_an_unreachable_hub_is_said_in_one_line() -> None:
    with pytest.raises(AscendError, match="run it again"):
        download("org/model.one", "modelscope", "http://127.0.0.1:9")


def test_a_file_of_another_revision_is_fetched_anew_whatever_its_size(endpoint: str) -> None:
    folder = download("org/model.one", "modelscope", endpoint)
    other = safetensors(bytes(256 * 4096))
    assert len(other) == len(CONTENT["model.safetensors"])
    (folder / "model.safetensors").write_bytes(other)
    download("org/model.one", "modelscope", endpoint)
    assert (folder / "model.safetensors").read_bytes() == CONTENT["model.safetensors"]


@pytest.mark.parametrize("has_hashes", [True, False])
def test_a_body_cut_short_is_never_complete(endpoint: str, monkeypatch: pytest.MonkeyPatch, has_hashes: bool) -> None:
    monkeypatch.setattr(ModelScope, "has_hashes", has_hashes)
    monkeypatch.setattr(ModelScope, "short_by", 10)
    with pytest.raises(AscendError, match="arrived damaged"):
        download("org/model.one", "modelscope", endpoint)
    assert not (modelscope_folder("org/model.one") / "model.safetensors").exists()


def test_two_processes_do_not_write_one_folder(endpoint: str) -> None:
    import fcntl

    folder = modelscope_folder("org/model.one")
    folder.mkdir(parents=True)
    with (folder / ".download.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another process is downloading"):
            download("org/model.one", "modelscope", endpoint)


@pytest.mark.parametrize("listing", [{"Files": 3}, {"Files": [{}]}, {"Files": [{"Path": 3}]}])
def test_a_listing_of_another_form_is_one_line(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, listing: dict[str, Any]
) -> None:
    monkeypatch.setattr(ModelScope, "listed", listing)
    with pytest.raises(AscendError, match="form that is not known"):
        download("org/model.one", "modelscope", endpoint)


def test_a_hub_without_a_scheme_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "hf-mirror.com")
    with pytest.raises(UsageError, match="write https"):
        download("org/model", "hf")


SHARDS = [f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)]


def shards(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    for name in names:
        (folder / name).write_bytes(safetensors(b"1234"))


@pytest.mark.parametrize("with_index", [True, False])
def test_a_folder_is_complete_when_every_file_of_its_index_is(tmp_path: Path, with_index: bool) -> None:
    shards(tmp_path, *SHARDS[:1])
    if with_index:
        weight_map = {f"layer.{number}": name for number, name in enumerate(SHARDS)}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert incomplete_files(tmp_path) == [f"{name} is missing" for name in SHARDS[1:]]
    shards(tmp_path, *SHARDS)
    assert incomplete_files(tmp_path) == []
    (tmp_path / SHARDS[1]).write_bytes(safetensors(b"1234")[:-1])
    assert incomplete_files(tmp_path) == [f"{SHARDS[1]} is not as long as its header says"]
    (tmp_path / SHARDS[1]).write_bytes(b"")
    assert incomplete_files(tmp_path) == [f"{SHARDS[1]} is no safetensors file, or is cut short"]


def test_an_interrupted_download_is_gone_on_with(
    ascend: Ascend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of three shards in Hugging Face's cache is not the model."""
    snapshot = tmp_path / "cache/huggingface/hub/models--org--one/snapshots/0123"
    shards(snapshot, *SHARDS[:1])
    fetched: list[str] = []

    def fetch(hub_id: str, hub: str) -> Path:
        fetched.append(hub_id)
        shards(snapshot, *SHARDS)
        return snapshot

    monkeypatch.setattr("ascend_cli.registry.download.download", fetch)
    assert ascend("serve", "org/one", "--download-only").code == 0
    assert fetched == ["org/one"]
    assert ascend("serve", "org/one", "--download-only").code == 0
    assert fetched == ["org/one"], "complete: no hub is asked"


def test_a_folder_without_all_its_shards_is_not_served(ascend: Ascend, tmp_path: Path) -> None:
    shards(tmp_path / "model", *SHARDS[:2])
    answer = ascend("serve", tmp_path / "model", "--download-only")
    assert answer.code == 2
    assert f"{SHARDS[2]} is missing" in answer.error_line


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64), st.binary(max_size=200))
def test_no_weights_file_however_odd_is_a_traceback(header: bytes, rest: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + rest)
        (Path(folder) / "model.safetensors.index.json").write_bytes(rest)
        assert isinstance(incomplete_files(Path(folder)), list)


@pytest.mark.parametrize(
    "index",
    [
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"null",
        b'{"weight_map": 3}',
        b'{"weight_map": {"a": null}}',
        b'{"weight_map": {"a": []}}',
        b'{"weight_map": {"a": "../other/model.safetensors"}}',
        b'{"weight_map": {"a": "/etc/model.safetensors"}}',
        b'{"weight_map": {"a": "model\\u0000.safetensors"}}',
        b'{"weight_map": {"a": "pytorch_model.bin"}}',
        b'{"weight_map": {"a": "x-00001-of-99999999999.safetensors"}}',
        b'{"weight_map": {"a": "x-1-of-100000000.safetensors"}}',
        b'{"weight_map": {"a": "x-000000001-of-100000000.safetensors"}}',
        b"\xff\xfe{\x00}\x00",
    ],
)
def test_a_hostile_index_is_incomplete_and_cheap(ascend: Ascend, model_folder: Path, index: bytes) -> None:
    """A name of a hundred million parts took all memory; an index nested too deep was a traceback."""
    (model_folder / "model.safetensors").write_bytes(b"")
    (model_folder / "model.safetensors.index.json").write_bytes(index)
    assert incomplete_files(model_folder)
    for command in (["plan"], ["deploy", "--chip", "910B3"], ["serve", "--dry-run"]):
        answer = ascend(command[0], model_folder, *command[1:])
        assert answer.code in (0, 1, 2) and "Traceback" not in answer.err
        assert answer.code != 2 or answer.error_line


# ------------------------------------------------------------------------------------------ ModelScope by its SDK

HAS_SDK = importlib.util.find_spec("modelscope_hub") is not None
by_sdk = pytest.mark.skipif(not HAS_SDK, reason='the extra "modelscope" (modelscope-hub) is not installed')
sdk = pytest.mark.parametrize("endpoint", ["sdk"], indirect=True)


@by_sdk
@sdk
def test_the_sdk_fetches_into_the_same_folder_once(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # a hub on this machine is behind no proxy
    folder = download("org/model.one", "modelscope", endpoint)
    assert folder == modelscope_folder("org/model.one") and incomplete_files(folder) == []
    assert not (folder / "pytorch_model.bin").exists(), "pickles are not fetched"
    assert os.environ.get("no_proxy") is None or os.environ["no_proxy"] != "*", "the environment is as it was"
    ModelScope.requests.clear()
    download("org/model.one", "modelscope", endpoint)
    assert ModelScope.requests == []


@by_sdk
@sdk
def test_the_sdk_goes_on_after_a_broken_connection(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelScope, "cut_at", 300_000)
    assert incomplete_files(download("org/model.one", "modelscope", endpoint)) == []


@by_sdk
@sdk
@pytest.mark.parametrize("has_hashes", [True, False])
def test_what_the_sdk_could_not_fetch_whole_is_never_complete(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, has_hashes: bool
) -> None:
    monkeypatch.setattr(ModelScope, "short_by", 10)
    monkeypatch.setattr(ModelScope, "has_hashes", has_hashes)
    with pytest.raises(AscendError, match="run it again"):
        download("org/model.one", "modelscope", endpoint)
    assert incomplete_files(modelscope_folder("org/model.one"))


@by_sdk
@sdk
def test_the_sdk_replaces_a_file_of_another_revision(endpoint: str) -> None:
    folder = modelscope_folder("org/model.one")
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"x" * len(CONTENT["model.safetensors"]))
    download("org/model.one", "modelscope", endpoint)
    assert (folder / "model.safetensors").read_bytes() == CONTENT["model.safetensors"]


@by_sdk
@sdk
def test_the_sdk_is_not_asked_for_what_leaves_the_folder(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelScope, "listed", {"Files": [{"Path": "../../x", "Type": "blob", "Size": 1}]})
    with pytest.raises(AscendError, match="outside"):
        download("org/model.one", "modelscope", endpoint)
    assert ModelScope.requests == []
