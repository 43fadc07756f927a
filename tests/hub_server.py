"""A small stand-in for the Hugging Face hub: models in memory, over HTTP, as far as fetching and
uploading need it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_this_test"


class Hub:
    """Repositories by name: files by revision, and who asked for what."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        # Those that need a token, and those whose page asks for more.
        self.private: set[str] = set()
        self.gated: set[str] = set()
        # Sizes that are told instead of the true ones.
        self.lies: dict[str, int] = {}
        self.fetched: list[str] = []
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def commit(self, name: str, revision: str = "main") -> str:
        """The number of a revision's commit."""
        files = self.repositories[name][revision]
        digest = hashlib.sha1(name.encode())
        for path in sorted(files):
            digest.update(path.encode() + files[path])
        return digest.hexdigest()

    def files(self, name: str, revision: str) -> dict[str, bytes] | None:
        """Files of a branch, or of the commit that it is at."""
        for branch, files in self.repositories[name].items():
            if revision in (branch, self.commit(name, branch)):
                return files
        return None


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if parts[:2] == ["api", "models"]:
            self.api("/".join(parts[2:4]), parts[4:])
        elif len(parts) > 4 and parts[2] == "resolve":
            self.file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self.answer(404, {"error": "no such page"})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if parts == ["api", "validate-yaml"]:
            self.answer(200, {"errors": [], "warnings": []})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401, {"error": "who are you?"})
        elif parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'user'}/{asked['name']}"
            if asked.get("private"):
                self.hub.private.add(name)
            self.hub.repositories.setdefault(name, {"main": {}})
            self.answer(200, {"url": f"{self.hub.address}/{name}", "name": name, "id": name})
        elif parts[4] == "preupload":
            files = json.loads(body)["files"]
            modes = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in files
            ]
            self.answer(200, {"files": modes})
        elif parts[4] == "commit":
            self.take("/".join(parts[2:4]), parts[5], body)
        else:
            self.answer(404, {"error": "no such page"})

    def take(self, name: str, revision: str, body: bytes) -> None:
        files = self.hub.repositories[name].setdefault(revision, {})
        for line in body.splitlines():
            one = json.loads(line)
            if one["key"] == "file":
                files[one["value"]["path"]] = base64.b64decode(one["value"]["content"])
        commit = self.hub.commit(name, revision)
        address = f"{self.hub.address}/{name}/commit/{commit}"
        self.answer(200, {"success": True, "commitOid": commit, "commitUrl": address})

    def found(self, name: str, revision: str) -> dict[str, bytes] | None:
        """Files of a revision; None where the answer says why not."""
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if name not in self.hub.repositories or (name in self.hub.private and not known):
            self.answer(401, {"error": "no such repository"}, {"X-Error-Code": "RepoNotFound"})
            return None
        if name in self.hub.gated:
            self.answer(403, {"error": "ask first"}, {"X-Error-Code": "GatedRepo"})
            return None
        files = self.hub.files(name, revision)
        if files is None:
            self.answer(404, {"error": "no such branch"}, {"X-Error-Code": "RevisionNotFound"})
        return files

    def api(self, name: str, rest: list[str]) -> None:
        revision = rest[1] if len(rest) > 1 else "main"
        files = self.found(name, revision)
        if files is None:
            return
        commit = next(
            self.hub.commit(name, branch)
            for branch, those in self.hub.repositories[name].items()
            if those is files
        )
        if rest[:1] == ["tree"]:
            entries = [
                {"type": "file", "path": path, "size": self.size(path, content), "oid": "0" * 40}
                for path, content in files.items()
            ]
            self.answer(200, entries)
            return
        siblings = [{"rfilename": path} for path in files]
        self.answer(200, {"id": name, "sha": commit, "siblings": siblings, "private": False})

    def size(self, path: str, content: bytes) -> int:
        return self.hub.lies.get(path, len(content))

    def file(self, name: str, revision: str, path: str) -> None:
        files = self.found(name, revision)
        if files is None:
            return
        if path not in files:
            self.answer(404, {"error": "no such file"}, {"X-Error-Code": "EntryNotFound"})
            return
        content = files[path]
        if self.command == "GET":
            self.hub.fetched.append(path)
        self.send_response(200)
        self.send_header("X-Repo-Commit", revision)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        size = self.size(path, content) if self.command == "HEAD" else len(content)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def answer(self, status: int, tree: Any, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(tree).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
