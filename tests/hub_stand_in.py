"""A stand-in of the Hugging Face hub: what huggingface_hub asks of it for a push, on a port of this machine.

It keeps every request, and the files of each branch of each repository, as the hub would have them after the commits.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_" + "k" * 34
COMMIT = "c" * 40


@dataclass
class Repo:
    """A repository: its visibility, and path -> bytes of each branch."""

    private: bool = False
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})


@dataclass
class Hub:
    """The state of the stand-in."""

    url: str = ""
    role: str = "write"
    xet: str = ""
    """Folder of the Xet storage; hf_xet then writes into it, as it would to a server."""
    repos: dict[str, Repo] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    """A regular expression on `METHOD /path` -> the status and message that it is refused with."""

    def asked(self, pattern: str) -> list[str]:
        """The requests that match."""
        return [f"{method} {path}" for method, path in self.requests if re.search(pattern, f"{method} {path}")]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, value: Any, status: int = 200, **headers: str) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(data)), "Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(data)

    def _serve(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        hub.requests.append((self.command, path))
        for pattern, (status, message) in hub.refusals.items():
            if re.search(pattern, f"{self.command} {path}"):
                return self._answer({"error": message}, status, X_Error_Message=message)
        if path.startswith("/lfs/"):  # the address is signed: it takes no token
            hub.blobs[path.removeprefix("/lfs/")] = body
            return self._answer({})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            message = "Invalid credentials in Authorization header"
            return self._answer({"error": message}, 401, X_Error_Message=message)
        for method, pattern, function in ROUTES:
            if method == self.command and (found := re.fullmatch(pattern, path)):
                return function(self, hub, body, *found.groups())
        return self._answer({"error": f"no route for {self.command} {path}"}, 404)

    do_GET = do_POST = do_PUT = do_HEAD = _serve


def _whoami(self: _Handler, hub: Hub, body: bytes) -> None:
    self._answer({"name": "me", "orgs": [], "auth": {"accessToken": {"role": hub.role}}})


def _create(self: _Handler, hub: Hub, body: bytes) -> None:
    asked = json.loads(body)
    name = f"{asked['organization']}/{asked['name']}"
    if name in hub.repos:
        return self._answer({"error": "You already created this model repo", "url": f"{hub.url}/{name}"}, 409)
    hub.repos[name] = Repo(asked.get("visibility") == "private")
    return self._answer({"url": f"{hub.url}/{name}", "name": name, "id": "1"})


def _info(self: _Handler, hub: Hub, body: bytes, name: str, branch: str | None = None) -> None:
    repo = hub.repos.get(name)
    if repo is None:
        return self._answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
    if (branch or "main") not in repo.branches:
        return self._answer({"error": "Invalid rev id"}, 404, X_Error_Code="RevisionNotFound")
    return self._answer({"_id": "1", "id": name, "modelId": name, "private": repo.private, "sha": COMMIT,
                         "tags": [], "downloads": 0, "likes": 0, "siblings": []})  # fmt: skip


def _branch(self: _Handler, hub: Hub, body: bytes, name: str, branch: str) -> None:
    hub.repos[name].branches[branch] = dict(hub.repos[name].branches["main"])
    self._answer({})


def _tree(self: _Handler, hub: Hub, body: bytes, name: str, branch: str) -> None:
    files = hub.repos[name].branches[branch]
    self._answer([{"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                  for path, data in files.items()])  # fmt: skip


def _validate(self: _Handler, hub: Hub, body: bytes) -> None:
    self._answer({"errors": [], "warnings": []})


def _preupload(self: _Handler, hub: Hub, body: bytes, name: str, branch: str) -> None:
    def mode(path: str) -> str:
        return "lfs" if path.endswith((".safetensors", "tokenizer.json")) else "regular"  # as its .gitattributes says

    self._answer({"files": [
        {"path": one["path"], "uploadMode": mode(one["path"]), "shouldIgnore": False} for one in json.loads(body)["files"]
    ]})  # fmt: skip


def _batch(self: _Handler, hub: Hub, body: bytes, name: str) -> None:
    self._answer({"transfer": "basic", "objects": [
        {"oid": one["oid"], "size": one["size"], "authenticated": True,
         **({} if one["oid"] in hub.blobs else {"actions": {"upload": {"href": f"{hub.url}/lfs/{one['oid']}"}}})}
        for one in json.loads(body)["objects"]
    ]})  # fmt: skip


def _commit(self: _Handler, hub: Hub, body: bytes, name: str, branch: str) -> None:
    files = hub.repos[name].branches[branch]
    for line in body.splitlines():
        entry = json.loads(line)
        kind, value = entry["key"], entry["value"]
        if kind == "header":
            hub.commits.append(value["summary"])
        elif kind == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif kind == "lfsFile":
            if hub.xet:  # the content is in the storage, which checks it
                files[value["path"]] = value["oid"].encode()
                continue
            data = hub.blobs.get(value["oid"], b"")
            if hashlib.sha256(data).hexdigest() != value["oid"] or len(data) != value["size"]:
                return self._answer({"error": f"{value['path']} was not uploaded"}, 400)
            files[value["path"]] = data
        elif kind == "deletedFile":
            del files[value["path"]]
    url = f"{hub.url}/{name}/commit/{COMMIT}"
    return self._answer({"commitUrl": url, "commitOid": COMMIT, "hookOutput": "", "success": True})


def _xet_token(self: _Handler, hub: Hub, body: bytes, name: str, branch: str) -> None:
    place, until = f"local://{hub.xet}", int(time.time()) + 3600
    self._answer({"accessToken": "x", "exp": until, "casUrl": place},
                 X_Xet_Cas_Url=place, X_Xet_Access_Token="x", X_Xet_Token_Expiration=str(until))  # fmt: skip


MODEL = r"/api/models/([^/]+/[^/]+)"
ROUTES = (
    ("GET", "/api/whoami-v2", _whoami),
    ("POST", "/api/repos/create", _create),
    ("POST", "/api/validate-yaml", _validate),
    ("GET", MODEL, _info),
    ("GET", rf"{MODEL}/revision/(.+)", _info),
    ("POST", rf"{MODEL}/branch/(.+)", _branch),
    ("GET", rf"{MODEL}/tree/(.+)", _tree),
    ("POST", rf"{MODEL}/preupload/(.+)", _preupload),
    ("GET", rf"{MODEL}/xet-write-token/(.+)", _xet_token),
    ("POST", rf"{MODEL}/commit/(.+)", _commit),
    ("POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", _batch),
)


@contextmanager
def hub_stand_in() -> Iterator[Hub]:
    """Serve a stand-in during the block."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
