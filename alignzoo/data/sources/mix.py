"""Data source that mixes other sources."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import PurePath
from typing import Annotated, Any, Self

from pydantic import Field as PydanticField
from pydantic import (
    FieldSerializationInfo,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from alignzoo.data.sources.readers import SUFFIXES
from alignzoo.interfaces.component import Component
from alignzoo.interfaces.data_source import ADDED, DataSource, Field, Split
from alignzoo.interfaces.rows import Row, Skipped

OF_ALL = ("pairs", "train_on", "deduplicate")
"""Fields of the mixture that no source has for itself."""
INHERITED = (*OF_ALL, "held_out_fraction", "label_noise", "label_noise_seed", *ADDED)
"""Fields that a source takes from the mixture where it has none of its own."""
Weight = Annotated[float, PydanticField(ge=1e-12, le=1e12)]


class Mix(DataSource):
    """A mixture of sources, each with its own files and format.

    Without weights, every training row of every source is used once. With weights, rows are drawn from each source in
    proportion to its weight, at random and without replacement, until the first source is used up: it gives all of its
    rows, and the others give as many as fit the weights. The rows that are not drawn are counted as left out.

    Each source has its own split and its own limits, and all of its held-out rows are kept. The rows of all sources are
    interleaved, so that any beginning has the proportions of the whole. `max_train_rows` and `held_out_rows` of the
    mixture keep these proportions.
    """

    name = "mix"

    of: tuple[SerializeAsAny[DataSource], ...] = Field(
        min_length=1, description="the sources, each with the fields of its own and optionally its name, `as`"
    )
    weights: tuple[Weight, ...] | None = Field(
        None, description="proportions of the training rows, one number for each source; null: every row once"
    )
    seed: int = Field(0, ge=0, description="seed of the rows that are drawn, and of their order")

    @model_validator(mode="before")
    @classmethod
    def _with_inherited(cls, values: Any) -> Any:
        """Give each source the fields that it takes from the mixture."""
        if not isinstance(values, Mapping) or not isinstance(values.get("of"), list | tuple):
            return values
        own = {key: values.get(key, cls.model_fields[key].default) for key in INHERITED}
        parts = [_inheriting(n, part, own) if isinstance(part, DataSource) else part
                 for n, part in enumerate(values["of"])]  # fmt: skip
        return {**values, "of": tuple(parts)}

    @field_validator("of")
    @classmethod
    def _separate(cls, parts: tuple[DataSource, ...]) -> tuple[DataSource, ...]:
        nested = next((n for n, part in enumerate(parts) if isinstance(part, Mix)), None)
        if nested is not None:
            raise ValueError(f"source {nested} is a mixture, and a mixture can't be mixed again; name its sources here")
        given = [part.as_ for part in parts if part.as_]
        twice, times = Counter(given).most_common(1)[0] if given else ("", 0)
        if times > 1:
            raise ValueError(f"two sources are named '{twice}' (as)")
        return parts

    @field_validator("weights")
    @classmethod
    def _of_each(cls, weights: tuple[float, ...] | None, info: ValidationInfo) -> tuple[float, ...] | None:
        if weights is not None and len(weights) != len(parts := info.data.get("of", weights)):
            raise ValueError(f"{len(weights)} weights for {len(parts)} sources")
        return weights

    @field_serializer("of", mode="wrap")
    def _without_inherited(
        self, parts: tuple[DataSource, ...], dump: SerializerFunctionWrapHandler, info: FieldSerializationInfo
    ) -> list[dict[str, Any]]:
        """Leave out what a source takes from the mixture, which may be overridden there."""
        kept = []
        for part, values in zip(parts, dump(parts), strict=True):
            same = {key for key in INHERITED if getattr(part, key) == getattr(self, key)}
            kept.append({key: value for key, value in values.items() if key not in same})
        return kept

    @property
    def parts(self) -> Mapping[str, DataSource]:
        """The sources by name: `as`, or the name of the file, the dataset or the source.

        A name that is taken gets a number.
        """
        taken = {part.as_ for part in self.of if part.as_}
        found: dict[str, DataSource] = {}
        numbers: dict[str, int] = {}
        for part in self.of:
            name = base = part.as_ or derived_name(part)
            while not part.as_ and (name in found or name in taken):
                numbers[base] = numbers.get(base, 1) + 1
                name = f"{base}-{numbers[base]}"
            found[name] = part
        return found

    @property
    def components(self) -> Sequence[Component]:
        """The mixture, its sources, and their formats."""
        return (self, *(component for part in self.of for component in part.components))

    def serving(self, kinds: Collection[str], ties: bool = False) -> Self:
        """Return a copy whose sources serve objectives that take these kinds of rows."""
        parts = tuple(part.serving(kinds, ties) for part in self.of)
        return super().serving(kinds, ties).model_copy(update={"of": parts})

    def splits(self) -> tuple[Split, ...]:
        """Return both splits if a source has a test split."""
        return ("train", "test") if any("test" in part.splits() for part in self.of) else ("train",)

    def read(self, split: Split) -> Iterator[Row | Skipped]:
        """Yield the rows of one source after the other.

        `alignzoo.data.splits` draws from them and interleaves them.
        """
        for name, part in self.parts.items():
            if split in part.splits():
                yield from (replace(row, id=f"{name}/{row.id}") for row in part.read(split))

    def fingerprint(self) -> str:
        """Return a digest of the fields, and of the name and the fingerprint of each source."""
        unset = {key for key in ADDED if getattr(self, key) is None}
        fields = self.model_dump(mode="json", exclude={"of", "as_", *unset})
        parts = [[name, part.fingerprint()] for name, part in self.parts.items()]
        return blake2b(json.dumps([fields, parts], sort_keys=True).encode(), digest_size=16).hexdigest()


def derived_name(source: DataSource) -> str:
    """Return a source's name without `as`: of its file or dataset, else the source's own."""
    path = getattr(source, "path", "")
    if not isinstance(path, str) or (PurePath(path).name == path and not path.endswith(SUFFIXES)):
        return source.name
    name = PurePath(path).name
    is_dataset = source.name == "hub"
    if not is_dataset and not name.endswith(SUFFIXES):
        return source.name
    base = name if is_dataset else name.split(".")[0]
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", base).strip("-._") or source.name


def _inheriting(n: int, part: DataSource, own: Mapping[str, Any]) -> DataSource:
    for key in OF_ALL:
        if key in part.model_fields_set and getattr(part, key) != own[key]:
            raise ValueError(f"of.{n}.{key} is one for all sources: set it beside `of`")
    return part.model_copy(update={key: value for key, value in own.items() if key not in part.model_fields_set})
