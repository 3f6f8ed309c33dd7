"""The base class of data sources, which yield preference rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from alignzoo.interfaces.component import Component, Strict
from alignzoo.interfaces.format import Format
from alignzoo.interfaces.rows import Row, Skipped

Split = Literal["train", "test"]
TrainOn = Literal["assistant", "last_assistant", "all"]
PART_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
"""Pattern of the names of a mixture's sources and of evaluation sets. In ids a slash follows the name."""
LONGEST_NAME = 100
"""Characters of such a name, which each row repeats."""
ADDED = ("prefix_tokens", "group_range")
"""Fields that `digest_of` leaves out where they are None, as before there were any."""


class PrefixTokens(Strict):
    """Prompts that are the first tokens of a text; their number is drawn for each row."""

    least: int = Field(2, ge=1, description="fewest tokens of a prompt")
    most: int = Field(8, ge=1, description="most tokens of a prompt")
    seed: int = Field(0, ge=0, description="seed of the numbers, each of which depends on it and on the row's id")

    @model_validator(mode="after")
    def _in_order(self) -> PrefixTokens:
        if self.least > self.most:
            raise ValueError(f"least is above most: expected at most {self.most}")
        return self


class DataSource(Component):
    """Base class of data sources: a subclass defines `name` and `read`.

    The hook `register_data_sources` returns the class. All sources share the fields below; a subclass adds its own,
    such as a `path` or column names.
    """

    needs_runs: ClassVar[tuple[str, ...]] = ()
    """Fields that name a recipe, whose run is made first. They are not part of `fingerprint`."""
    reads_draws: ClassVar[bool] = False
    """True if these recipes have a section `draw`, so that their runs are data sets."""

    max_train_rows: int | None = Field(None, ge=1, description="use at most this many training rows, the first ones")
    held_out_rows: int | None = Field(None, ge=0, description="use at most this many held-out rows; 0: none")
    held_out_fraction: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="fraction of the groups held out if the source has no test split; 0: train on every row",
    )
    deduplicate: bool = Field(
        False,
        description="drop repeated rows: of a split the first one stays, of a row in both splits the held-out one",
    )
    label_noise: float = Field(
        0.0,
        ge=0,
        le=1,
        description="fraction of training rows to mislabel: pairs swapped, labels flipped, lists reversed",
    )
    label_noise_seed: int = Field(0, ge=0, description="seed of the choice of mislabeled rows")
    pairs: Literal["extremes", "adjacent", "all"] = Field(
        "extremes", description="pairs that a ranked list gives to an objective on pairs"
    )
    train_on: TrainOn = Field(
        "assistant",
        description="scored part of a chat: the assistant's turns after the prompt, the last one alone, or all tokens "
        "(of rows with one completion without a label)",
    )
    prefix_tokens: PrefixTokens | None = Field(
        None,
        description="with `draw` or `rollout`, prompts are the first tokens of the rows' prompts, or of texts for SFT",
    )
    group_range: tuple[float, float] | None = Field(
        None,
        description="use the prompt groups whose hash, a number from 0 to 1, lies in this range, such as [0, 0.5]; "
        "ranges that don't overlap share no prompt group",
    )

    as_: str | None = Field(
        None,
        alias="as",
        pattern=PART_NAME,
        max_length=LONGEST_NAME,
        description="name in a mixture: in the ids of its rows and in reports",
    )

    @field_validator("group_range")
    @classmethod
    def _is_range(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 <= value[0] < value[1] <= 1:
            raise ValueError(f"{list(value)} is no range: expected two numbers from 0 to 1, the smaller one first")
        return value

    _kinds: frozenset[str] = PrivateAttr(frozenset())
    _ties: bool = PrivateAttr(False)

    @property
    def parts(self) -> Mapping[str, DataSource]:
        """The sources of a mixture by name; any other source itself, under an empty name."""
        return {"": self}

    def serving(self, kinds: Collection[str], ties: bool = False) -> Self:
        """Return a copy of the source for objectives that take rows of these kinds.

        The kinds are those of `Objective.data`. A dataset with a separate split for each training method chooses its
        split by them. With `ties`, rows in which no completion is better are used too.
        """
        copy = self.model_copy()
        copy._kinds, copy._ties = frozenset(kinds), ties
        return copy

    @property
    def takes_ties(self) -> bool:
        """True if an objective takes rows in which no completion is better."""
        return self._ties

    def bind_run(self, key: str, folder: Callable[[], Path]) -> None:
        """Take the folder of the run that a field of `needs_runs` names, before any row is read.

        Args:
            key: The field, as a recipe writes it.
            folder: Returns the run folder, which may not exist yet.
        """

    def splits(self) -> tuple[Split, ...]:
        """Return the names of the source's splits.

        With `("train",)`, whole groups of its rows are held out as the test split.
        """
        return ("train",)

    def read(self, split: Split) -> Iterator[Row | Skipped]:
        """Yield the rows of a split in a fixed order.

        An unusable row is yielded as a `Skipped`, never dropped.

        Raises:
            UserError: the file is missing or a line is malformed; the error has the file and the line.
        """
        raise NotImplementedError(f"{type(self).__name__} has no read")

    def fingerprint(self) -> str:
        """Return 32 hex digits of everything that the rows depend on.

        A source that reads anything besides its fields, such as a file, must add a digest of those contents.
        """
        return self.digest_of(())

    @property
    def components(self) -> Sequence[Component]:
        """The source, and its format if it has one."""
        own = (getattr(self, key) for key in type(self).model_fields)
        return (self, *(value for value in own if isinstance(value, Format)))

    def digest_of(self, contents: Iterable[str]) -> str:
        """Return a digest of the fields and of these strings.

        It omits the fields `path` (files may be moved) and `as`, those in `needs_runs`, and those marked `NoEffect`.
        """
        runs = {name for name, field in type(self).model_fields.items() if (field.alias or name) in self.needs_runs}
        unset = [key for key in ADDED if getattr(self, key) is None]
        left_out = self.fields_without_effect() | dict.fromkeys(("path", "as_", *runs, *unset), True)
        fields = json.dumps(self.model_dump(mode="json", exclude=left_out), sort_keys=True)
        return blake2b("\n".join([self.name, fields, *contents]).encode(), digest_size=16).hexdigest()

    @model_serializer(mode="wrap")
    def _with_name(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keep the name when a source is dumped as a part of a mixture or as an evaluation set."""
        return {"name": self.name, **fields(self)}
