"""Anthropic's HH files, and the embedded sample in their format."""

from __future__ import annotations

from collections.abc import Iterator

from alignzoo.data.formats.hh import HHDialogues
from alignzoo.data.sources.base import FileSource
from alignzoo.data.sources.json_records import Record
from alignzoo.interfaces.data_source import Field, Split
from alignzoo.interfaces.rows import Row, Skipped

TOY = "toy"


class HH(FileSource):
    """Anthropic's helpful and harmless dialogues: `chosen` and `rejected`, each a whole `\\n\\nHuman: ...` transcript.

    Source: Bai et al. 2022, arXiv:2204.05862; files as in the dataset Anthropic/hh-rlhf.
    """

    name = "hh"

    path: str | tuple[str, ...] = Field(
        TOY, description="a file, a folder, a pattern or a list of these; `sample` is the embedded sample"
    )

    def splits(self) -> tuple[Split, ...]:
        """The sample has both; files have both when their names say so."""
        return ("train", "test") if self.path == TOY else super().splits()

    def read(self, split: Split) -> Iterator[Row | Skipped]:
        """Rows of the sample or of the files."""
        if self.path != TOY:
            yield from super().read(split)
            return
        from alignzoo.data import toy

        yield from toy.rows(split)

    def row(self, id: str, record: Record, where: str) -> Row | Skipped:
        """One record of a file."""
        return HHDialogues().row(id, record, where)

    def fingerprint(self) -> str:
        """Of the fields and the contents of the files, or of the sample's version."""
        if self.path != TOY:
            return super().fingerprint()
        from alignzoo.data import toy

        return self.digest_of([f"sample {toy.VERSION}"])
