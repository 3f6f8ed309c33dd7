"""Data source for the embedded toy data, as pairs or as ranked lists."""

from __future__ import annotations

from collections.abc import Iterator

from alignzoo.interfaces.data_source import DataSource, Field, Split
from alignzoo.interfaces.rows import Row, Skipped


class Toy(DataSource):
    """Embedded toy data: pairs as under `hh`, or ranked lists of 3 or 4 replies, with scores."""

    name = "toy"

    completions: int = Field(4, ge=2, le=4, description="replies to each prompt, best first")

    def splits(self) -> tuple[Split, ...]:
        """Return both splits."""
        return ("train", "test")

    def read(self, split: Split) -> Iterator[Row | Skipped]:
        """Yield the same rows in the same order on every call."""
        from alignzoo.data import toy

        yield from toy.rows(split, self.completions)

    def fingerprint(self) -> str:
        """Return a digest of the fields and of the version of the toy data."""
        from alignzoo.data import toy

        return self.digest_of([f"sample {toy.VERSION}"])
