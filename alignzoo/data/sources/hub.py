"""Datasets from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from pydantic import SerializeAsAny

from alignzoo.core.errors import UserError, first_line
from alignzoo.data.formats.records import Records
from alignzoo.data.sources.named_splits import choose_splits
from alignzoo.data.sources.optional import need
from alignzoo.interfaces.data_source import DataSource, Field, Split
from alignzoo.interfaces.format import Format
from alignzoo.interfaces.rows import Row, Skipped


class Hub(DataSource):
    """A dataset of the hub; a format says what a record means. Of itself it knows tables, chats and HH dialogues."""

    name = "hub"

    path: str = Field(description="the dataset's id, for example Anthropic/hh-rlhf")
    subset: str | None = Field(None, description="a configuration of the dataset (its `name` on the hub)")
    revision: str | None = Field(None, description="branch, tag or commit")
    train_split: str | None = Field(None, description="by default `train`, or the only one that is no test split")
    test_split: str | None = Field(None, description="by default the one named like the training split")
    format: SerializeAsAny[Format] = Field(Records(), description="what a record means (alignzoo list format)")

    def splits(self) -> tuple[Split, ...]:
        """Both, when the dataset has a test split."""
        return ("train", "test") if len(self._parts()) > 1 else ("train",)

    def read(self, split: Split) -> Iterator[Row | Skipped]:
        """Rows in the dataset's order."""
        name, dataset = self._parts()[0 if split == "train" else 1]
        for number, record in enumerate(dataset, 1):
            yield self.format.row(f"{name}:{number}", record, f"{self.path}: {name} row {number}")

    def fingerprint(self) -> str:
        """Of the fields and of what `datasets` says that its tables contain."""
        return self.digest_of([f"{name} {dataset._fingerprint}" for name, dataset in self._parts()])

    def _parts(self) -> list[tuple[str, Any]]:
        splits = _load(self.path, self.subset, self.revision)
        where = f"hub dataset {self.path}"
        names = choose_splits(list(splits), where, self._kinds, self.train_split, self.test_split)
        return [(name, splits[name]) for name in names if name is not None]


@lru_cache(maxsize=4)
def _load(path: str, subset: str | None, revision: str | None) -> dict[str, Any]:
    datasets = need("datasets", "datasets of the hub")
    try:
        return dict(datasets.load_dataset(path, subset, revision=revision))
    except Exception as error:  # the hub client raises a dozen kinds for no network, no such id, no such subset
        raise UserError(
            f"the dataset can't be loaded: {first_line(error) or type(error).__name__}", where=f"hub dataset {path}",
            expected="an id that exists, with the hub in reach or the dataset in its cache",
        ) from None  # fmt: skip
