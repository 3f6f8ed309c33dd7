"""Data source for labeled film reviews: IMDb of files or the hub, or toy reviews."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import model_validator

from alignzoo.core.errors import UserError
from alignzoo.data.sources.hub import load_tables
from alignzoo.data.sources.json_records import Record
from alignzoo.data.sources.toy_or_files import TOY, ToyOrFiles
from alignzoo.interfaces.data_source import Field, Split
from alignzoo.interfaces.rows import Completion, Row, Skipped


class IMDb(ToyOrFiles):
    """Film reviews with a label, as texts or as labeled completions.

    A record has `text` and `label`: 1 for positive, 0 for negative.

    Source: Maas et al. 2011, "Learning word vectors for sentiment analysis", which section 6 of the DPO paper
    (arXiv:2305.18290) uses.
    """

    name = "imdb"

    hub: str | None = Field(
        None, description="id of a dataset of the hub with these columns, such as stanfordnlp/imdb, in place of `path`"
    )
    labeled: bool = Field(
        False, description="true: completions with a label, for a classifier; false: texts, which any label fits"
    )

    @model_validator(mode="after")
    def _files_or_hub(self) -> IMDb:
        if self.hub is not None and self.path != TOY:
            raise ValueError("path and hub both name data; expected one of them")
        return self

    def splits(self) -> tuple[Split, ...]:
        """Return both splits, but for files whose names do not distinguish them."""
        return super().splits() if self.hub is None else ("train", "test")

    def read(self, split: Split) -> Iterator[Row | Skipped]:
        """Yield the rows of a split.

        Raises:
            UserError: The files or the dataset can't be read, or a record is no review.
        """
        if self.hub is None:
            yield from super().read(split)
            return
        for number, record in enumerate(self._tables(self.hub)[split], 1):
            yield self.row(f"{split}:{number}", record, f"{self.hub}: {split} row {number}")

    def fingerprint(self) -> str:
        """Return a digest of the fields and of the data."""
        if self.hub is None:
            return super().fingerprint()
        return self.digest_of([table._fingerprint for table in self._tables(self.hub).values()])

    def _tables(self, hub: str) -> dict[str, Any]:
        tables = load_tables(hub)
        if missing := {"train", "test"} - tables.keys():
            raise UserError(
                f"the dataset has no split '{sorted(missing)[0]}'", where=f"hub dataset {hub}",
                expected="splits train and test, as of stanfordnlp/imdb",
            )  # fmt: skip
        return {split: tables[split] for split in ("train", "test")}

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
