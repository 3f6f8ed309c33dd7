"""Data source for Anthropic's HH files and the embedded toy data in their format."""

from __future__ import annotations

from collections.abc import Iterator

from alignzoo.data.formats.hh import HHDialogues
from alignzoo.data.sources.json_records import Record
from alignzoo.data.sources.toy_or_files import ToyOrFiles
from alignzoo.interfaces.data_source import Split
from alignzoo.interfaces.rows import Row, Skipped


class HH(ToyOrFiles):
    """Anthropic's helpful and harmless dialogues: pairs of whole transcripts.

    Source: Bai et al. 2022, arXiv:2204.05862; files as in the dataset Anthropic/hh-rlhf.
    """

    name = "hh"

    def row(self, id: str, record: Record, where: str) -> Row | Skipped:
        """Build a row from one record."""
        return HHDialogues().row(id, record, where)

    def toy_rows(self, split: Split) -> Iterator[Row | Skipped]:
        """Yield rows of the toy data."""
        from alignzoo.data import toy

        yield from toy.rows(split)

    def toy_version(self) -> str:
        """Return name and version of the toy data."""
        from alignzoo.data import toy

        return f"sample {toy.VERSION}"
