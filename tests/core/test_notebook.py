"""Progress in a notebook: a bar that is updated in place, and plain lines."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from alignzoo.api.progress import screen_of
from alignzoo.core import notebook
from alignzoo.core.console import Screen


@pytest.fixture
def shown(monkeypatch):
    """What a kernel's display gets."""
    found = []

    def display(data, display_id, raw):
        assert raw
        assert display_id
        found.append(data)
        return SimpleNamespace(update=lambda data, raw: found.append(data))

    module = ModuleType("IPython")
    module.get_ipython = lambda: SimpleNamespace(kernel=object())
    module.display = SimpleNamespace(display=display)
    monkeypatch.setitem(sys.modules, "IPython", module)
    return found


def test_a_bar_is_drawn_in_place_and_ends_full(shown, capsys):
    screen = screen_of(None)
    assert isinstance(screen, notebook.NotebookScreen)
    with screen.bar("<dpo>", 1_000) as advance:
        for _ in range(1_000):
            advance(1, "loss 0.5 <b>")
    assert len(shown) < 20
    assert shown[0]["text/plain"].startswith("<dpo> 0 / 1,000")
    assert "1,000 / 1,000" in shown[-1]["text/html"]
    assert "&lt;dpo&gt;" in shown[-1]["text/html"]
    assert "<b>" not in shown[-1]["text/html"]
    screen.event("evaluation after step 2")
    assert capsys.readouterr().out == "evaluation after step 2\n"
    with screen.without_bars().bar("inside", 2) as advance:
        advance(2, "")
    assert "inside" not in str(shown)


def test_quiet_is_quiet_and_elsewhere_a_file_gets_nothing(shown, monkeypatch):
    assert not screen_of(True).bars
    monkeypatch.delitem(sys.modules, "IPython")
    assert not notebook.in_notebook()
    assert type(screen_of(None)) is Screen
    assert not screen_of(None).bars
    assert screen_of(False).bars
