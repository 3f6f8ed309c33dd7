"""A hub that does not answer costs seconds, and what the hub lacks is found before a weight is fetched."""

from __future__ import annotations

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from huggingface_hub import constants

from alignzoo.core import hub
from alignzoo.core.errors import UserError
from alignzoo.models.from_pretrained import check_start

COMMIT = "a" * 40


@pytest.fixture
def online(monkeypatch, tmp_path):
    """A process that may ask the hub, at an address of the test's."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    hub.hub_problem.cache_clear()

    def at(address):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )

    yield at
    hub.hub_problem.cache_clear()


def test_a_closed_port_is_known_at_once_and_only_the_cache_is_used_then(online):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    online(f"http://127.0.0.1:{port}")
    assert f"http://127.0.0.1:{port} can't be reached" in hub.hub_problem()
    assert constants.HF_HUB_OFFLINE
    with pytest.raises(UserError, match=r"from 'some/model': the hub's cache lacks it, and http") as error:
        check_start("some/model", None, "model")
    assert "hf download some/model" in str(error.value)


def test_a_hub_that_says_nothing_is_given_up(online, monkeypatch):
    monkeypatch.setattr(hub, "SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:  # it accepts, and never answers
        online(f"http://127.0.0.1:{server.getsockname()[1]}")
        began = time.perf_counter()
        assert "can't be reached (" in hub.hub_problem()
        assert time.perf_counter() - began < hub.SECONDS + 60  # a busy machine; without the limit it never ends


class StandIn(BaseHTTPRequestHandler):
    """As much of the hub's API as tells which files a model has."""

    files: ClassVar[dict[str, bytes]] = {}

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path == "/":
            return self._send(b"")
        if path.startswith("/api/models/team/model/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(body), "oid": "b" * 40} for name, body in self.files.items()
            ]
            return self._send(json.dumps(tree).encode())
        if path.startswith("/api/models/team/model"):
            names = [{"rfilename": name} for name in self.files]
            return self._send(json.dumps({"id": "team/model", "sha": COMMIT, "siblings": names}).encode())
        name = path.rpartition("/")[2]
        if path.startswith("/team/model/resolve/") and name in self.files:
            return self._send(self.files[name])
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, body):
        self.send_response(200)
        for name, value in {
            "Content-Length": str(len(body)),
            "ETag": f'"{len(body)}"',
            "X-Repo-Commit": COMMIT,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def serve(online):
    server = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    online(f"http://127.0.0.1:{server.server_port}")
    yield lambda files: setattr(StandIn, "files", files)
    server.shutdown()
    server.server_close()


INDEX = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}).encode()


def test_every_shard_of_the_index_must_be_at_the_hub(serve):
    serve({"config.json": b"{}", "model.safetensors.index.json": INDEX, "model-1.safetensors": b""})
    with pytest.raises(UserError, match=r"the index of 'team/model' names model-2.safetensors, which the hub lacks"):
        check_start("team/model", None, "model")
    serve(
        {
            "config.json": b"{}",
            "model.safetensors.index.json": INDEX,
            "model-1.safetensors": b"",
            "model-2.safetensors": b"",
        }
    )
    check_start("team/model", None, "model")
    assert not hub.hub_problem()


def test_pickled_weights_and_an_unknown_id_are_sentences(serve):
    serve({"config.json": b"{}", "pytorch_model.bin": b""})
    with pytest.raises(UserError, match="no weights in safetensors"):
        check_start("team/model", None, "model")
    with pytest.raises(UserError, match=r"references.guide: no model could be loaded from 'team/other'"):
        check_start("team/other", None, "references.guide")
