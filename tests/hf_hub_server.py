"""A Hugging Face Hub on this machine: what its client asks of the real one to download the files of a repository."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar


@contextmanager
def serve(repositories: Mapping[str, Mapping[str, Path]]) -> Iterator[str]:
    """Serve `{repository: {revision: folder}}` and yield the address for `HF_ENDPOINT`."""

    class Handler(_Handler):
        served = repositories

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def commit_of(repository: str, revision: str) -> str:
    """Return the commit that a revision stands for."""
    return hashlib.sha1(f"{repository}@{revision}".encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    served: ClassVar[Mapping[str, Mapping[str, Path]]]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self._api("/".join(parts[2:4]), *parts[4:6])
        elif len(parts) >= 5 and parts[2] == "resolve":
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def _api(self, repository: str, what: str = "revision", revision: str = "main") -> None:
        folder = self._folder(repository, revision)
        if folder is None:
            return
        if what == "tree":
            found: object = [
                {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": path.name}
                for path in sorted(folder.iterdir())
            ]
        else:
            found = {"id": repository, "sha": self._commit(repository, revision), "siblings": []}
        self._answer(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

    def _file(self, repository: str, revision: str, name: str) -> None:
        folder = self._folder(repository, revision)
        if folder is None:
            return
        if not (folder / name).is_file():
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        content = (folder / name).read_bytes()
        commit = self._commit(repository, revision)
        self._answer(200, content, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": commit})

    def _folder(self, repository: str, revision: str) -> Path | None:
        revisions = self.served.get(repository)
        if revisions is None:
            self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})
            return None
        for name, folder in revisions.items():
            if revision in (name, commit_of(repository, name)):
                return folder
        self._answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        return None

    def _commit(self, repository: str, revision: str) -> str:
        return revision if revision not in self.served[repository] else commit_of(repository, revision)

    def _answer(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
