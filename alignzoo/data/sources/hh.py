"""Data source for Anthropic's HH files and the embedded toy data in their format."""

from __future__ import annotations

from collections.abc import Iterator

from alignzoo.data.formats.hh import HHDialogues
from alignzoo.data.sources.base import FileSource
from alignzoo.data.sources.json_records import Record
from alignzoo.interfaces.data_source import Field, Split
from alignzoo.interfaces.rows import Row, Skipped

TOY = "toy"


class HH(FileSource):
    """Anthropic's helpful and harmless dialogues: pairs of whole transcripts.

    Source: Bai et al. 2022, arXiv:2204.05862; files as in the dataset Anthropic/hh-rlhf.
    """

    name = "hh"

    path: str | tuple[str, ...] = Field(
        TOY, description="a file, folder, glob pattern or list of these; `toy` is the embedded toy data"
    )

    def splits(self) -> tuple[Split, ...]:
        """Return both splits for the toy data, and for files whose names distinguish them."""
        return ("train", "test") if self.path == TOY else super().splits()

    def read(self, split: Split) -> Iterator[Row | Skipped]:
        """Yield rows of the toy data or of the files."""
        if self.path != TOY:
            yield from super().read(split)
            return
        from alignzoo.data import toy

        yield from toy.rows(split)

    def row(self, id: str, record: Record, where: str) -> Row | Skipped:
        """Build a row from one record."""
        return HHDialogues().row(id, record, where)

    def fingerprint(self) -> str:
        """Return a digest of the fields and of the files, or of the version of the toy data."""
        if self.path != TOY:
            return super().fingerprint()
        from alignzoo.data import toy

        return self.digest_of([f"sample {toy.VERSION}"])
