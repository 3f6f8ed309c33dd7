"""The base classes of data sources."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from alignzoo.interfaces.format import Format
from alignzoo.interfaces.rows import Row, Skipped

Split = Literal["train", "test"]


class DataSource(BaseModel):
    """Where preference rows come from. Subclass it, give it a `name` and `read`, and return it from
    `register_data_sources`. The fields below are every source's; a subclass adds its own (a `path`, column names)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: ClassVar[str]
    needs_runs: ClassVar[tuple[str, ...]] = ()
    """Keys of fields that name a recipe: its run is made first. They are no part of `fingerprint`."""

    max_train_rows: int | None = Field(None, ge=1, description="use at most this many training rows (the first ones)")
    held_out_rows: int | None = Field(None, ge=1, description="use at most this many held-out rows")
    held_out_fraction: float = Field(
        0.1, gt=0, lt=1, description="share of the groups held out when the source has no test split of its own"
    )
    label_noise: float = Field(
        0.0, ge=0, le=1, description="share of training rows to mislabel: pairs swapped, labels flipped, lists reversed"
    )
    label_noise_seed: int = Field(0, ge=0, description="which rows are mislabeled")
    pairs: Literal["extremes", "adjacent", "all"] = Field(
        "extremes", description="which pairs a ranked list gives to an objective that takes pairs"
    )

    _kinds: frozenset[str] = PrivateAttr(frozenset())

    def serving(self, kinds: Collection[str]) -> Self:
        """The same source for an objective that takes these kinds of rows (`Objective.data`): where a dataset has a
        split for each way to train, they say which one is meant."""
        copy = self.model_copy()
        copy._kinds = frozenset(kinds)
        return copy

    def splits(self) -> tuple[Split, ...]:
        """Its own splits. With `("train",)` a held-out one is carved from it, whole groups at a time."""
        return ("train",)

    def read(self, split: Split) -> Iterator[Row | Skipped]:
        """Its rows in a fixed order. What can't be used is yielded as `Skipped`, never dropped; what can't be read at
        all (no such file, malformed line) raises `alignzoo.core.errors.UserError` with file and line."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """32 hex digits of everything that its rows depend on. A source that reads something outside its fields adds
        the contents of that: a path alone says nothing about what is in the file."""
        return self.digest_of(())

    @property
    def components(self) -> Sequence[BaseModel]:
        """Itself, and the format that it reads with where that has a name of its own."""
        own = (getattr(self, key) for key in type(self).model_fields)
        return (self, *(value for value in own if isinstance(value, Format)))

    def digest_of(self, contents: Iterable[str]) -> str:
        """A digest of the fields (less `path`, which may be moved) and of these strings."""
        fields = json.dumps(self.model_dump(mode="json", exclude={"path", *self.needs_runs}), sort_keys=True)
        return blake2b("\n".join([self.name, fields, *contents]).encode(), digest_size=16).hexdigest()
