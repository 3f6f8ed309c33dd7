"""What stands on the screen while a run works."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from alignzoo.core.console import Screen

NOTE = "loss 0.4721 accuracy 0.689 margin 0.114"


@pytest.mark.parametrize("width", [80, 92, 100, 160])
def test_the_figures_have_their_places_at_every_width(width):
    screen = Screen()
    screen.console = Console(file=StringIO(), width=width, force_terminal=True, _environ={})
    with screen.bar("robust_dpo", 1234) as advance:
        advance(617, NOTE)
    last = [line for line in screen.console.file.getvalue().splitlines() if "robust_dpo" in line][-1]
    for words in ("robust_dpo", "617/1234", "eta", NOTE):
        assert words in last
    assert "…" not in last
    assert ("━" in last) == (width > 80)


def test_a_log_file_gets_a_long_line_unbroken(capsys):
    text = "data: " + "200 training rows " * 20
    Screen().info(text)
    assert capsys.readouterr().err == text + "\n"
