"""Fetching from a hub that runs in this process: files, progress, versions, and what refusals are told."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from engine.errors import ModelError
from engine.files import hub
from engine.files.checkpoint import FileProgress
from engine.loader import NANO, resolve

NEWEST = "a" * 40
FILES = {
    **{name: (NANO / name).read_bytes() for name in ("config.json", "tokenizer.json", "tokenizer_config.json")},
    "model-00001-of-00002.safetensors": bytes(300_000),
    "model-00002-of-00002.safetensors": bytes(200_000),
    "README.md": b"not needed",
    "original/weights.pth": bytes(10),
}
NEEDED = {name for name in FILES if name.endswith((".json", ".safetensors"))}


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as a download of `some/model` needs; `some/gated` is refused."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Not on the terminal."""

    def _answer(self) -> None:
        parts = self.path.split("?")[0].strip("/").split("/")
        api = parts[0] == "api"
        repository = "/".join(parts[2:4] if api else parts[:2])
        if repository == "some/gated":
            self._send(403, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
        elif repository != "some/model":
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif api and "tree" in parts:
            tree = [{"type": "file", "path": n, "size": len(d), "oid": _oid(d)} for n, d in FILES.items()]
            self._send(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})
        elif api:
            siblings = [{"rfilename": name} for name in FILES]
            found = {"id": repository, "sha": NEWEST, "siblings": siblings, "private": False, "tags": []}
            self._send(200, json.dumps(found).encode(), {"Content-Type": "application/json"})
        else:
            data = FILES["/".join(parts[4:])]
            self._send(200, data, {"X-Repo-Commit": NEWEST, "ETag": f'"{_oid(data)}"'})

    def _send(self, code: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _oid(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The hub, with an empty cache on this side, which is returned."""
    found = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    address = f"http://127.0.0.1:{found.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    try:
        yield tmp_path / "cache"
    finally:
        found.shutdown()
        thread.join()
        found.server_close()


def test_into_the_cache(server: Path, capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[FileProgress] = []
    fetched = hub.fetch("some/model", on_progress=seen.append)
    assert fetched.revision == NEWEST
    assert {file.name for file in fetched.path.iterdir()} == NEEDED
    assert all((fetched.path / name).read_bytes() == FILES[name] for name in NEEDED)
    total = sum(len(FILES[name]) for name in NEEDED)
    done = [report.done_bytes for report in seen]
    assert done == sorted(done)
    assert seen[-1] == FileProgress("fetching", total, total)
    assert "%" not in capfd.readouterr().err, "the hub's own bars stay off"


def test_into_a_folder(server: Path, tmp_path: Path) -> None:
    fetched = hub.fetch("some/model", to=tmp_path / "mine")
    assert fetched.path == tmp_path / "mine"
    assert fetched.revision == NEWEST
    assert {file.name for file in fetched.path.iterdir() if file.is_file()} == NEEDED
    assert hub.find("some/model") is None, "the cache has none"


def test_the_first_use_of_a_model_fetches_it_and_the_second_does_not(
    server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[FileProgress] = []
    path = resolve("some/model", seen.append)
    assert path.parent.name == "snapshots"
    assert seen
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    seen.clear()
    assert resolve("some/model", seen.append) == hub.find("some/model") == path
    assert seen == []


@pytest.mark.parametrize("name", ["model-00002-of-00002.safetensors", "config.json", "tokenizer.json"])
def test_a_half_fetched_model_is_fetched_on(server: Path, name: str) -> None:
    path = resolve("some/model")
    (path / name).unlink()
    assert hub.find("some/model") is None
    assert hub.cached("some/model") == path
    assert resolve("some/model") == path
    assert (path / name).read_bytes() == FILES[name]


def test_refusals(server: Path) -> None:
    with pytest.raises(ModelError, match=r"some/gated is gated: accept its terms .* `hf auth login`"):
        hub.fetch("some/gated")
    with pytest.raises(ModelError, match=r"the hub has no model some/other, or it is private"):
        hub.fetch("some/other")


@pytest.mark.parametrize("error", [RuntimeError("xet: connection\nreset"), OSError(28, "No space left on device")])
def test_other_trouble_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def download(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    told = r"some/model cannot be fetched \((RuntimeError: xet: connection reset|OSError: .*)\); what came is kept"
    with pytest.raises(ModelError, match=told):
        hub.fetch("some/model")


def test_without_a_network(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError) as caught:
        hub.fetch("some/model")
    assert "`hf download some/model --local-dir model`, copy the folder here" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a/b", True), ("a", False), ("a/b/c", False), ("./a/b", False), ("/a", False), ("~/a", False), ("a/", False)],
)
def test_what_looks_like_a_hub_id(name: str, expected: bool) -> None:
    assert hub.is_hub_id(name) == expected
