"""What is printed: escaped by one mechanism, and never the end of a run."""

from __future__ import annotations

import errno
import json
import sys
from io import BytesIO, StringIO, TextIOWrapper

import click
import pytest
from rich.table import Table
from rich.text import Text

from alignzoo.core.console import Console, Screen
from alignzoo.core.redaction import printable
from alignzoo.core.streams import SafeStream, close_streams

HOSTILE = "id \x1b]0;title\x07 \x1b[31m \x9b1m [/bold] [red] :smile: \u202e"


class Broken(StringIO):
    """A stream whose terminal or disk is gone."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, "no")

    def flush(self) -> None:
        raise OSError(self.number, "no")


def test_every_way_to_print_shows_control_characters_and_markup(monkeypatch):
    file = StringIO()
    monkeypatch.setattr(sys, "stdout", SafeStream(file))
    monkeypatch.setattr(sys, "stderr", SafeStream(file))
    table = Table(box=None)
    table.add_column("ID")
    table.add_row(HOSTILE)
    console = Console(width=200)
    ways = (
        lambda: print(HOSTILE),
        lambda: click.echo(HOSTILE),
        lambda: click.ClickException(HOSTILE).show(),
        lambda: console.print(HOSTILE),
        lambda: console.print(table),
        lambda: console.print(Text.assemble((f"a{HOSTILE}", "red"))),
        lambda: Screen().console.print(HOSTILE, soft_wrap=True),
    )
    for number, way in enumerate(ways):
        file.truncate(file.seek(0))
        way()
        printed = file.getvalue()
        assert printable(printed) == printed, number
        assert "[/bold] [red] :smile:" in printed, number


def test_printed_json_means_the_same():
    value = {HOSTILE: [HOSTILE, "\u200d\U0001f600", "\ud800"]}
    assert json.loads(printable(json.dumps(value, ensure_ascii=False))) == value


def test_a_progress_bar_of_a_library_still_moves():
    file = StringIO()
    stream = SafeStream(file)
    for text in ("\r 10%", "\n\x1b[A", "\x1b[A", "\x1b[A of an id"):
        stream.write(text)
    assert file.getvalue() == "\r 10%\n\x1b[A\x1b[A\\u001b[A of an id"


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO, errno.EBADF, errno.ENOSPC])
def test_a_stream_that_fails_ends_nothing(monkeypatch, number, capsys):
    out, err = SafeStream(Broken(number)), SafeStream(Broken(number))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    click.echo("a result")
    Screen().info("a line")
    with Screen().bar("steps", 3) as advance:
        advance(1, "")
    full = number == errno.ENOSPC
    assert close_streams(0) == full  # results that are lost are an error, and a reader that has left is none
    assert close_streams(2) == 2


def test_a_console_of_a_python_program_ends_nothing_either(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Broken(errno.ENOSPC))
    Screen().info("a line")
    assert sys.stderr.number == errno.ENOSPC  # the program's own stream stays


def test_an_ascii_terminal_shows_what_it_can():
    raw = BytesIO()
    stream = SafeStream(TextIOWrapper(raw, encoding="ascii"))
    for words in ("≈ 漢 ⟦a⟧", "plain"):
        click.echo(words, file=stream)
    stream.flush()
    assert raw.getvalue() == b"\\u2248 \\u6f22 \\u27e6a\\u27e7\nplain\n"
    with pytest.raises(AttributeError):
        stream.buffer  # noqa: B018 - click would write there, unredacted
