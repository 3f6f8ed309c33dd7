"""Base class of data sources that read files, or embedded toy data in their place."""

from __future__ import annotations

from collections.abc import Iterator

from alignzoo.data.sources.base import FileSource
from alignzoo.interfaces.data_source import Field, Split
from alignzoo.interfaces.rows import Row, Skipped

TOY = "toy"


class ToyOrFiles(FileSource):
    """Base class for sources whose `path` is `toy` by default.

    Subclasses implement `row`, `toy_rows` and `toy_version`.
    """

    path: str | tuple[str, ...] = Field(
        TOY, description="a file, folder, glob pattern or list of these; `toy` is the embedded toy data"
    )

    def toy_rows(self, split: Split) -> Iterator[Row | Skipped]:
        """Yield rows of the toy data, the same in the same order on every call."""
        raise NotImplementedError

    def toy_version(self) -> str:
        """Return name and version of the toy data, for the fingerprint."""
        raise NotImplementedError

    def splits(self) -> tuple[Split, ...]:
        """Return both splits for the toy data, and for files whose names distinguish them."""
        return ("train", "test") if self.path == TOY else super().splits()

    def read(self, split: Split) -> Iterator[Row | Skipped]:
        """Yield rows of the toy data or of the files."""
        yield from self.toy_rows(split) if self.path == TOY else super().read(split)

    def fingerprint(self) -> str:
        """Return a digest of the fields and of the files, or of the version of the toy data."""
        return self.digest_of([self.toy_version()]) if self.path == TOY else super().fingerprint()
