"""Data source for the embedded toy data, as ranked lists or as chats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from alignzoo.data.formats.records import Records
from alignzoo.interfaces.data_source import DataSource, Field, Split
from alignzoo.interfaces.rows import Row, Skipped


class Toy(DataSource):
    """Embedded toy data: ranked lists, conversations for SFT, or pairs of conversations with tool calls."""

    name = "toy"

    shape: Literal["lists", "messages", "tools"] = Field(
        "lists", description="ranked lists with scores; conversations for SFT; pairs of conversations that call a tool"
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
        records = toy.conversations(split) if self.shape == "messages" else toy.tool_pairs(split)
        for number, record in enumerate(records, 1):
            where = f"{self.shape}-{split}:{number}"
            yield Records().row(where, record, where)

    def fingerprint(self) -> str:
        """Return a digest of the fields and of the version of the toy data."""
        from alignzoo.data import toy

        return self.digest_of([f"sample {toy.VERSION}", f"chats {toy.CHATS_VERSION}"])
