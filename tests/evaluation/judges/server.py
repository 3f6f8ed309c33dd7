"""A chat endpoint on loopback with prepared answers, which records its requests."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-not-to-be-seen-0123456789"


@dataclass
class Answer:
    """What is sent back: a chat completion with this text, or a status and a body of its own; status 0 hangs up."""

    text: str | None = ""
    status: int = 200
    body: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    drops: int = 0
    """Spaces before the body, which JSON may begin with: one every 10 ms."""

    def bytes(self) -> bytes:
        body = {"choices": [{"index": 0, "message": {"role": "assistant", "content": self.text}}]}
        return (self.body if self.body is not None else json.dumps(body)).encode()


@dataclass
class Asked:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def question(self) -> str:
        return self.body["messages"][0]["content"]


Behavior = Callable[[Asked, int], Answer]
"""A request and how many there were before it -> the answer."""


class Judge(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, behavior: Behavior) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behavior, self.asked, self.lock = behavior, [], threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Judge

    def do_GET(self) -> None:  # nobody should; it is noticed
        self.do_POST()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "null")
        asked = Asked(self.path, dict(self.headers), body)
        with self.server.lock:
            before = len(self.server.asked)
            self.server.asked.append(asked)
        answer = self.server.behavior(asked, before)
        if answer.status == 0:
            return
        try:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            for _ in range(answer.drops):
                self.wfile.write(b" ")
                time.sleep(0.01)
            self.wfile.write(answer.bytes())
        except OSError:  # whoever asked has gone
            pass

    def log_message(self, *about: object) -> None:
        pass


@contextmanager
def serving(behavior: Behavior) -> Iterator[Judge]:
    server = Judge(behavior)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
