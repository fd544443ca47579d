"""A Hugging Face Hub on this machine: what its client asks of the real one to download files and to commit them.

Every state that a repository ever had stays to be had by its commit, as on the real Hub, until `forget` takes it away.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import huggingface_hub.constants
import pytest

LFS = (".safetensors", ".bin", ".model")
"""How files end that the Hub keeps outside git; it tells their SHA-256."""


@dataclass
class Hub:
    """What the server serves, and how it misbehaves."""

    address: str
    repositories: dict[str, dict[str, Path]]
    """Repository -> branch or commit -> folder."""
    scratch: Path
    private: dict[str, bool] = field(default_factory=dict[str, bool])
    """The repositories that were created, and whether they are private."""
    altered: dict[str, Callable[[bytes], bytes]] = field(default_factory=dict[str, Callable[[bytes], bytes]])
    """What is sent in place of a file's bytes, whose digest is told all the same."""
    stalled: dict[str, float] = field(default_factory=dict[str, float])
    """Files whose second half does not come within so many seconds."""
    paced: dict[str, tuple[int, float]] = field(default_factory=dict[str, tuple[int, float]])
    """Files of which so many bytes come at once, each after so many seconds."""
    headers: dict[str, str] = field(default_factory=dict[str, str])
    """Headers that every file has in place of those that it should have."""
    limited: dict[str, int] = field(default_factory=dict[str, int])
    """Requests that are to be made again after so many seconds, by a part of their path."""
    refused: set[str] = field(default_factory=set[str])
    """Requests that fail, by a part of their path."""
    requests: list[str] = field(default_factory=list[str])
    """Every request so far: method and path."""

    def move(self, repository: str, folder: Path, branch: str = "main") -> str:
        """Make a folder the state of a branch, and return its commit."""
        revisions = self.repositories.setdefault(repository, {})
        if branch in revisions:
            revisions[commit_of(repository, revisions[branch])] = revisions[branch]
        revisions[branch] = folder
        return commit_of(repository, folder)

    def forget(self, repository: str) -> None:
        """Rewrite history: nothing but what the main branch holds now is to be had."""
        self.repositories[repository] = {"main": self.repositories[repository]["main"]}

    def find(self, repository: str, revision: str) -> Path | None:
        """Return the folder that a branch or a commit stands for."""
        revisions = self.repositories.get(repository, {})
        commits = {commit_of(repository, folder): folder for folder in revisions.values()}
        return revisions.get(revision) or commits.get(revision)


@contextmanager
def serving(repositories: Mapping[str, Mapping[str, Path]]) -> Iterator[Hub]:
    """Serve `{repository: {revision: folder}}`; the hub's address is for `HF_ENDPOINT`."""

    class Handler(_Handler):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.02})
    with tempfile.TemporaryDirectory() as scratch:
        Handler.hub = Hub(
            f"http://127.0.0.1:{server.server_port}",
            {name: dict(revisions) for name, revisions in repositories.items()},
            Path(scratch),
        )
        thread.start()
        try:
            yield Handler.hub
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


@contextmanager
def serve(repositories: Mapping[str, Mapping[str, Path]]) -> Iterator[str]:
    """Serve `{repository: {revision: folder}}` and yield the address for `HF_ENDPOINT`."""
    with serving(repositories) as hub:
        yield hub.address


def use(hub: Hub, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Have the client of this process ask this hub, and keep what it gets in an own cache."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    )


@contextmanager
def used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Serve an empty hub to the client of this process, whose cache and `ZOO_HOME` are below a folder."""
    monkeypatch.setenv("ZOO_HOME", str(folder / "home"))
    with serving({}) as hub:
        use(hub, monkeypatch, folder / "cache")
        yield hub


def commit_of(repository: str, folder: Path) -> str:
    """Return the commit of a repository that holds what the folder holds."""
    listing = [(name, etag_of(name, path.read_bytes())) for name, path in _files(folder)]
    return hashlib.sha1(json.dumps([repository, listing]).encode()).hexdigest()


def etag_of(name: str, content: bytes) -> str:
    """Return the digest that the Hub tells: SHA-256 of files in LFS, git's SHA-1 of the others."""
    if name.endswith(LFS):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _files(folder: Path) -> list[tuple[str, Path]]:
    return sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[Hub]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = self._parts()
        if parts is None:
            return
        if parts[:2] == ["api", "models"]:
            self._api("/".join(parts[2:4]), *parts[4:6])
        elif len(parts) >= 5 and parts[2] == "resolve":
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = self._parts()
        if parts is None:
            return
        if parts == ["api", "repos", "create"]:
            self._create(json.loads(body))
        elif parts == ["api", "validate-yaml"]:
            self._answer_json({"errors": [], "warnings": []})
        elif parts[-3:] == ["lfs", "objects", "batch"]:
            self._lfs(json.loads(body))
        elif parts[:2] == ["api", "models"] and self._folder("/".join(parts[2:4]), *parts[5:6]) is not None:
            getattr(self, f"_{parts[4]}")("/".join(parts[2:4]), parts[5], body)

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = self._parts()
        if parts is not None:
            (self.hub.scratch / parts[-1]).write_bytes(content)
            self._answer(200, b"")

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def _parts(self) -> list[str] | None:
        """Return the parts of the path; None for a request that is refused."""
        self.hub.requests.append(f"{self.command} {self.path}")
        if any(part in self.path for part in self.hub.refused):
            self._answer(500, b"")
            return None
        seconds = next((value for part, value in self.hub.limited.items() if part in self.path), None)
        if seconds is not None:
            self._answer(429, b"", {"Retry-After": str(seconds)})
            return None
        return self.path.partition("?")[0].replace("%2F", "/").strip("/").split("/")

    def _api(self, repository: str, what: str = "revision", revision: str = "main") -> None:
        folder = self._folder(repository, revision)
        if folder is None:
            return
        found: object
        if what == "tree":
            found = [
                {"type": "file", "path": name, "size": path.stat().st_size, "oid": etag_of(name, path.read_bytes())}
                for name, path in _files(folder)
            ]
        else:
            names = [{"rfilename": name} for name, _ in _files(folder)]
            found = {"id": repository, "sha": commit_of(repository, folder), "siblings": names}
        self._answer_json(found)

    def _file(self, repository: str, revision: str, name: str) -> None:
        folder = self._folder(repository, revision)
        if folder is None:
            return
        commit = commit_of(repository, folder)
        if not (folder / name).is_file():
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        content = (folder / name).read_bytes()
        headers = {"ETag": f'"{etag_of(name, content)}"', "X-Repo-Commit": commit} | self.hub.headers
        sent = self.hub.altered.get(name, lambda content: content)(content)
        self._answer(200, sent, headers, self.hub.stalled.get(name), self.hub.paced.get(name))

    def _create(self, asked: dict[str, Any]) -> None:
        repository = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        if repository in self.hub.repositories:
            told = {"error": "You already created this model repo", "url": f"{self.hub.address}/{repository}"}
            self._answer_json(told, 409)
            return
        empty = self.hub.scratch / f"empty{len(self.hub.repositories)}"
        empty.mkdir()
        self.hub.repositories[repository] = {"main": empty}
        self.hub.private[repository] = asked.get("visibility") == "private" or bool(asked.get("private"))
        self._answer_json({"url": f"{self.hub.address}/{repository}"})

    def _lfs(self, asked: dict[str, Any]) -> None:
        upload = {one["oid"]: {"upload": {"href": f"{self.hub.address}/lfs/{one['oid']}"}} for one in asked["objects"]}
        objects = [{**one, "actions": upload[one["oid"]]} for one in asked["objects"]]
        self._answer_json({"transfer": "basic", "objects": objects})

    def _preupload(self, repository: str, revision: str, body: bytes) -> None:
        files = [
            {
                "path": one["path"],
                "uploadMode": "lfs" if one["path"].endswith(LFS) else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for one in json.loads(body)["files"]
        ]
        self._answer_json({"files": files})

    def _branch(self, repository: str, branch: str, body: bytes) -> None:
        revisions = self.hub.repositories[repository]
        if branch in revisions:
            self._answer_json({"error": "Reference already exists"}, 409)
            return
        revisions[branch] = revisions["main"]
        self._answer_json({})

    def _commit(self, repository: str, revision: str, body: bytes) -> None:
        base = self.hub.find(repository, revision)
        assert base is not None
        folder = Path(tempfile.mkdtemp(dir=self.hub.scratch))
        shutil.copytree(base, folder, dirs_exist_ok=True)
        for line in body.decode().splitlines():
            operation: dict[str, Any] = json.loads(line)
            what, value = operation["key"], operation["value"]
            if what == "header":
                continue
            target = folder / value["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            if what == "deletedFile":
                target.unlink()
            elif what == "file":
                target.write_bytes(base64.b64decode(value["content"]))
            else:
                assert what == "lfsFile", what
                content = (self.hub.scratch / value["oid"]).read_bytes()
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                target.write_bytes(content)
        commit = self.hub.move(repository, folder, revision)
        told = {"success": True, "commitOid": commit, "commitUrl": f"{self.hub.address}/{repository}/commit/{commit}"}
        self._answer_json(told)

    def _folder(self, repository: str, revision: str = "main") -> Path | None:
        if repository not in self.hub.repositories:
            self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})
            return None
        folder = self.hub.find(repository, revision)
        if folder is None and not self.path.startswith(f"/api/models/{repository}/branch/"):
            self._answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
            return None
        return folder or self.hub.repositories[repository]["main"]

    def _answer_json(self, told: object, status: int = 200) -> None:
        self._answer(status, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def _answer(
        self,
        status: int,
        content: bytes,
        headers: Mapping[str, str] | None = None,
        stalled: float | None = None,
        paced: tuple[int, float] | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if stalled is not None:
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            time.sleep(stalled)
            self.close_connection = True
            return
        if paced is not None:
            self._write_slowly(content, *paced)
            return
        self.wfile.write(content)

    def _write_slowly(self, content: bytes, count: int, seconds: float) -> None:
        try:
            for start in range(0, len(content), count):
                time.sleep(seconds)
                self.wfile.write(content[start : start + count])
                self.wfile.flush()
        except OSError:  # nobody waits for the rest
            self.close_connection = True
