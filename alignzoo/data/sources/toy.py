"""Data source for the embedded toy data, as lists, chats or steps of a solution."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from alignzoo.data.formats.records import Records
from alignzoo.interfaces.data_source import DataSource, Field, Split
from alignzoo.interfaces.rows import Row, Skipped


class Toy(DataSource):
    """Embedded toy data: ranked lists, SFT chats, tool-call pairs, or solution-step pairs."""

    name = "toy"

    shape: Literal["lists", "messages", "tools", "steps"] = Field(
        "lists",
        description="ranked lists with scores; conversations for SFT; pairs of conversations that call a tool; "
        "pairs of steps of a word problem",
    )
    completions: int = Field(4, ge=2, le=4, description="replies to each prompt of a list, best first")

    def splits(self) -> tuple[Split, ...]:
        """Return both splits."""
        return ("train", "test")

    def read(self, split: Split) -> Iterator[Row | Skipped]:
        """Yield the same rows in the same order on every call."""
        from alignzoo.data import toy

        if self.shape == "lists":
            yield from toy.rows(split, self.completions)
            return
        records = {"messages": toy.conversations, "tools": toy.tool_pairs, "steps": toy.step_pairs}[self.shape]
        for number, record in enumerate(records(split), 1):
            where = f"{self.shape}-{split}:{number}"
            yield Records().row(where, record, where)

    def fingerprint(self) -> str:
        """Return a digest of the fields and of the version of the toy data."""
        from alignzoo.data import toy

        steps = [f"steps {toy.STEPS_VERSION}"] if self.shape == "steps" else []
        return self.digest_of([f"sample {toy.VERSION}", f"chats {toy.CHATS_VERSION}", *steps])
