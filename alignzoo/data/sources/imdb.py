"""Data source for labeled film reviews: IMDb's files, or embedded toy reviews."""

from __future__ import annotations

from collections.abc import Iterator

from alignzoo.core.errors import UserError
from alignzoo.data.sources.json_records import Record
from alignzoo.data.sources.toy_or_files import ToyOrFiles
from alignzoo.interfaces.data_source import Field, Split
from alignzoo.interfaces.rows import Completion, Row, Skipped


class IMDb(ToyOrFiles):
    """Film reviews with a label, as texts or as labeled completions.

    A record has `text` and `label`: 1 for positive, 0 for negative.

    Source: Maas et al. 2011, "Learning word vectors for sentiment analysis", which section 6 of the DPO paper
    (arXiv:2305.18290) uses.
    """

    name = "imdb"

    labeled: bool = Field(
        False, description="true: completions with a label, for a classifier; false: texts, which any label fits"
    )

    def row(self, id: str, record: Record, where: str) -> Row | Skipped:
        """Build the row of one review, with a space for each line break, `<br />` in IMDb."""
        text, label = record.get("text"), record.get("label")
        if not isinstance(text, str):
            raise UserError("no text field 'text'", where=where, expected="columns text and label")
        text = " ".join(text.replace("<br />", " ").split())
        if not text:
            return Skipped(id, "empty completion")
        if not self.labeled:
            return Row(id, "", (Completion(text),), group=text)
        if label not in (0, 1):
            raise UserError(f"label is {label!r}", where=where, expected="1 (positive) or 0 (negative)")
        return Row(id, "", (Completion(text, columns={"desirable": float(label)}),), group=text)

    def toy_rows(self, split: Split) -> Iterator[Row | Skipped]:
        """Yield rows of the toy reviews."""
        from alignzoo.data.toy import labeled_reviews

        for number, record in enumerate(labeled_reviews(split), 1):
            where = f"reviews-{split}:{number}"
            yield self.row(where, record, where)

    def toy_version(self) -> str:
        """Return name and version of the toy reviews."""
        from alignzoo.data.toy import REVIEWS_VERSION

        return f"reviews {REVIEWS_VERSION}"
