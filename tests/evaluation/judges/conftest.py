"""An endpoint for the tests of judges that ask one."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from evaluation.judges.server import KEY, serving


@pytest.fixture
def serve(request, monkeypatch):
    """`serve(behavior)`: a server, and the environment that leads to it. The default is the module's `by_length`."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with ExitStack() as stack:

        def start(behavior=None):
            server = stack.enter_context(serving(behavior or request.module.by_length))
            monkeypatch.setenv("OPENAI_BASE_URL", server.url)
            return server

        yield start
