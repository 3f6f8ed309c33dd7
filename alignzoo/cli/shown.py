"""Rows in the terminal as the model sees them.

Roles are at the left, and the scored tokens are in brackets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from alignzoo.core.console import Console
from alignzoo.core.redaction import printable

STYLES = {"system": "magenta", "user": "cyan", "assistant": "green", "tool": "yellow", "text": ""}
"""Role -> color of its tokens."""
MARGIN = 9
"""Columns of the longest role."""


def print_legend(console: Console) -> None:
    """Print what colors and marks mean."""
    words = Text("\nroles: ")
    for role, style in STYLES.items():
        words.append(role, style).append(" ")
    ends = "shades separate tokens" if console.is_terminal else "| separates tokens"
    words.append(" ⟦").append("scored", "bold").append(f"⟧  {ends}  ↵ ends a line")
    console.print(words)


def print_row(console: Console, row: Mapping[str, Any], words: str = "") -> None:
    """Print a row of `alignzoo.data.shown_rows`, with some words on it."""
    notes = [words, f"{row['cut']:,} tokens are cut off" if row["cut"] else ""]
    head = "; ".join([f"{row['id']} ({row['split']})", *filter(None, notes)])
    console.print("\n--- " + head.replace("\n", "\\n"))
    for part in row["parts"]:
        scored = f", {part['scored']:,} scored" if part["scored"] else ""
        console.print(Text(f"{part['name'].replace('_', ' ')}: {part['tokens']:,} tokens{scored}", "bold"))
        table = Table.grid(padding=(0, 1))
        table.add_column(justify="right", width=MARGIN)
        table.add_column(overflow="fold")
        before = ""
        for role, is_scored, tokens in part["pieces"]:
            table.add_row(Text(role if role != before else "", STYLES[role]), _piece(console, role, is_scored, tokens))
            before = role
        if hidden := part["tokens"] - sum(len(tokens) for *_, tokens in part["pieces"]):
            table.add_row("", Text(f"... and {hidden:,} tokens more"))
        console.print(table)


def _piece(console: Console, role: str, is_scored: bool, tokens: Sequence[str]) -> Text:
    style = f"{STYLES[role]} {'bold' if is_scored else ''}".strip()
    text = Text("⟦" if is_scored else "")
    for i, token in enumerate(tokens):
        if i and not console.is_terminal:
            text.append("|")
        shown = printable(token).replace("\n", "↵\n")
        text.append(shown, f"{style} reverse".strip() if i % 2 and console.is_terminal else style)
    if text.plain.endswith("\n"):
        text.right_crop(1)
    return text.append("⟧" if is_scored else "")
