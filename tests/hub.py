"""A model hub on 127.0.0.1: as much of the protocol as huggingface_hub needs to fetch files, and ways to fail.

huggingface_hub reads its environment at import, so what talks to this hub runs in a process of its own, started
with `environment(hub, cache)`.
"""

import hashlib
import os
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c" * 40


@dataclass
class Hub:
    """Repositories of files, served while the context lasts.

    repositories  name -> file name -> content
    refused       name -> (status, the hub's code for it): a gated or private repository
    truncated     files whose download ends halfway: the body is shorter than was announced by HEAD
    dropped       files whose connection breaks halfway; nothing is answered afterwards
    requests      the files that were asked for, in order: ("GET", "org/name", "file")
    """

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    truncated: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)
    requests: list[tuple[str, str, str]] = field(default_factory=list)

    def __enter__(self) -> "Hub":
        hub = self

        class Handler(_Handler):
            def __init__(self, *args: object) -> None:
                self.hub = hub
                super().__init__(*args)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._gone = False
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """What HF_ENDPOINT must be."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def fetched(self) -> list[str]:
        """The names of the files whose content was asked for."""
        return [name for method, _, name in self.requests if method == "GET"]


def environment(endpoint: str, cache: Path, **more: str) -> dict[str, str]:
    """The environment of a process that uses the hub at `endpoint` and keeps what it fetches in `cache`."""
    kept = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    return kept | {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "NO_PROXY": "127.0.0.1"} | more


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub = self.hub
        if self.path.startswith("/api/"):  # what lies in a folder of a repository: there are no folders
            return self._refuse(404, "EntryNotFound")
        # /ORG/NAME/resolve/REVISION/FILE
        organisation, repository, verb, _, name = [*self.path.lstrip("/").split("/", 4), "", "", "", ""][:5]
        repository = f"{organisation}/{repository}"
        if verb == "resolve":
            hub.requests.append((self.command, repository, name))
        if hub._gone:
            self.close_connection = True
            return None
        if repository in hub.refused:
            status, code = hub.refused[repository]
            return self._refuse(status, code)
        if verb != "resolve" or repository not in hub.repositories:
            return self._refuse(404, "RepoNotFound")
        content = hub.repositories[repository].get(name)
        if content is None:
            return self._refuse(404, "EntryNotFound")
        return self._send(name, content)

    def _send(self, name: str, content: bytes) -> None:
        digest = hashlib.sha256(content).hexdigest()
        body = content
        if self.command == "GET" and name in self.hub.truncated:
            body = content[: len(content) // 2]
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{digest}"')
        self.send_header("X-Linked-Etag", f'"{digest}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if name in self.hub.dropped:
            self.wfile.write(body[: len(body) // 2])
            self.hub._gone = True
            self.close_connection = True
            return
        self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Nothing: the tests' output is the tests'."""
