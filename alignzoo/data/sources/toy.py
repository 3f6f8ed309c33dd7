"""The embedded sample, as pairs or as ranked lists."""

from __future__ import annotations

from collections.abc import Iterator

from alignzoo.interfaces.data_source import DataSource, Field, Split
from alignzoo.interfaces.rows import Row, Skipped


class Toy(DataSource):
    """The embedded sample: pairs as under `hh`, or ranked lists of 3 or 4 replies; every reply has a score."""

    name = "toy"

    completions: int = Field(4, ge=2, le=4, description="replies to each prompt, the best one first")

    def splits(self) -> tuple[Split, ...]:
        """Both."""
        return ("train", "test")

    def read(self, split: Split) -> Iterator[Row | Skipped]:
        """Always the same rows in the same order."""
        from alignzoo.data import toy

        yield from toy.rows(split, self.completions)

    def fingerprint(self) -> str:
        """Of the fields and the sample's version."""
        from alignzoo.data import toy

        return self.digest_of([f"sample {toy.VERSION}"])
