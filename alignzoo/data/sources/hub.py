"""Datasets from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from pydantic import SerializeAsAny

from alignzoo.data.files import need
from alignzoo.data.format import Format
from alignzoo.data.formats.records import Records
from alignzoo.data.rows import Row, Skipped
from alignzoo.data.source import DataSource, Field, Split
from alignzoo.data.sources.table import split_parts
from alignzoo.errors import UserError, nearest


class Hub(DataSource):
    """A dataset of the hub; a format says what a record means. Of itself it knows tables, chats and HH dialogues."""

    name = "hub"

    path: str = Field(description="the dataset's id, for example Anthropic/hh-rlhf")
    subset: str | None = Field(None, description="a configuration of the dataset (its `name` on the hub)")
    revision: str | None = Field(None, description="branch, tag or commit")
    train_split: str | None = Field(None, description="by default `train`")
    test_split: str | None = Field(None, description="by default test, validation, valid, eval or dev if there is one")
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
        chosen = {
            **({"train": _named(splits, self.train_split, self.path)} if self.train_split else {}),
            **({"test": _named(splits, self.test_split, self.path)} if self.test_split else {}),
        }
        return split_parts(splits | chosen, f"hub dataset {self.path}")


def _named(splits: dict[str, Any], name: str, path: str) -> Any:
    if name not in splits:
        expected = f"one of {', '.join(splits)}"
        raise UserError(
            f"no split '{name}'", where=f"hub dataset {path}", expected=expected, nearest=nearest(name, splits)
        )
    return splits[name]


@lru_cache(maxsize=4)
def _load(path: str, subset: str | None, revision: str | None) -> dict[str, Any]:
    datasets = need("datasets", "datasets of the hub")
    try:
        return dict(datasets.load_dataset(path, subset, revision=revision))
    except Exception as error:  # the hub client raises a dozen kinds for no network, no such id, no such subset
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"the dataset can't be loaded: {first_line}", where=f"hub dataset {path}",
            expected="an id that exists, with the hub in reach or the dataset in its cache",
        ) from None  # fmt: skip
