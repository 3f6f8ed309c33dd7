"""Data source for datasets of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from pydantic import SerializeAsAny

from alignzoo.core.errors import UserError, first_line
from alignzoo.core.hub import hub_problem
from alignzoo.data.formats.records import Records
from alignzoo.data.sources.named_splits import choose_splits
from alignzoo.data.sources.optional import need
from alignzoo.interfaces.data_source import DataSource, Field, Split
from alignzoo.interfaces.format import Format
from alignzoo.interfaces.rows import Row, Skipped


class Hub(DataSource):
    """A dataset of the Hugging Face hub, interpreted by a format.

    The default format reads named columns, chats and HH dialogues.
    """

    name = "hub"

    path: str = Field(description="id of the dataset, for example Anthropic/hh-rlhf")
    subset: str | None = Field(None, description="configuration of the dataset (`name` in `load_dataset`)")
    revision: str | None = Field(None, description="branch, tag or commit")
    train_split: str | None = Field(None, description="by default `train`, or the only split that is not a test split")
    test_split: str | None = Field(None, description="by default the test split whose name matches the training split")
    format: SerializeAsAny[Format] = Field(Records(), description="format of the records (see `alignzoo list`)")

    def splits(self) -> tuple[Split, ...]:
        """Return both splits if the dataset has a test split."""
        return ("train", "test") if len(self._parts()) > 1 else ("train",)

    def read(self, split: Split) -> Iterator[Row | Skipped]:
        """Yield rows in the order of the dataset."""
        name, dataset = self._parts()[0 if split == "train" else 1]
        for number, record in enumerate(dataset, 1):
            yield self.format.row(f"{name}:{number}", without_nulls(record), f"{self.path}: {name} row {number}")

    def fingerprint(self) -> str:
        """Return a digest of the fields and of the tables' fingerprints by `datasets`."""
        return self.digest_of([f"{name} {dataset._fingerprint}" for name, dataset in self._parts()])

    def _parts(self) -> list[tuple[str, Any]]:
        splits = load_tables(self.path, self.subset, self.revision)
        where = f"hub dataset {self.path}"
        names = choose_splits(list(splits), where, self._kinds, self.train_split, self.test_split)
        return [(name, splits[name]) for name in names if name is not None]


def without_nulls(record: dict[str, Any]) -> dict[str, Any]:
    """Return the record without the null keys of objects in its columns.

    Arrow has no missing keys.
    """
    return {name: _stripped(value) for name, value in record.items()}


def _stripped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _stripped(one) for key, one in value.items() if one is not None}
    return [_stripped(one) for one in value] if isinstance(value, list) else value


@lru_cache(maxsize=4)
def load_tables(path: str, subset: str | None = None, revision: str | None = None) -> dict[str, Any]:
    """Return split -> table of a dataset of the hub.

    Raises:
        UserError: It can't be loaded.
    """
    problem = hub_problem()
    datasets = need("datasets", "datasets of the hub")
    try:
        return dict(datasets.load_dataset(path, subset, revision=revision))
    except Exception as error:  # the hub client raises many types for a missing network, id or subset
        raise UserError(
            f"the dataset can't be loaded: {first_line(error) or type(error).__name__}",
            where=f"hub dataset {path}", expected="an existing id, with the hub reachable or the dataset in its cache",
            hint=problem,
        ) from None  # fmt: skip
