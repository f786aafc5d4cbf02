"""Fetching models from local servers that speak the hubs' protocols: complete, resumed, damaged, hostile."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from ascend_cli.errors import AscendError, UsageError
from ascend_cli.registry.download import download, modelscope_folder

CONTENT = {
    "config.json": b'{"model_type": "qwen3"}',
    "model.safetensors": bytes(range(256)) * 4096,
    "pytorch_model.bin": b"pickle",
}


class ModelScope(http.server.BaseHTTPRequestHandler):
    """The two calls of ModelScope's repository interface; `cut_at` drops the connection once, `requests` records."""

    requests: ClassVar[list[tuple[str, str | None]]] = []
    cut_at: ClassVar[int | None] = None
    listed: ClassVar[dict[str, Any]] = {}

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path == "/api/v1/models/org/model.one/repo/files":
            files = [
                {"Path": path, "Type": "blob", "Size": len(body), "Sha256": hashlib.sha256(body).hexdigest()}
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
        self._send(body[start:], 206 if start else 200)

    def _send(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        return


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    ModelScope.requests.clear()
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
