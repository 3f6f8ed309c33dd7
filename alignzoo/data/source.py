"""The base class of data sources."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from alignzoo.data.rows import Row, Skipped

Split = Literal["train", "test"]


class DataSource(BaseModel):
    """Where preference rows come from. Subclass it, give it a `name` and `read`, and return it from
    `register_data_sources`. The fields below are every source's; a subclass adds its own (a `path`, column names)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: ClassVar[str]

    train_rows: int | None = Field(None, ge=1, description="use at most this many training rows (the first ones)")
    held_out_rows: int | None = Field(None, ge=1, description="use at most this many held-out rows")
    held_out: float = Field(
        0.1, gt=0, lt=1, description="share of the groups held out when the source has no test split of its own"
    )
    label_noise: float = Field(
        0.0, ge=0, le=1, description="share of training pairs whose chosen and rejected are swapped, seeded"
    )
    label_noise_seed: int = Field(0, ge=0, description="which pairs are swapped")

    def splits(self) -> tuple[Split, ...]:
        """The splits it has of its own. With `("train",)` a held-out split is carved from it, whole groups at a time."""
        return ("train",)

    def read(self, split: Split) -> Iterator[Row | Skipped]:
        """Its rows in a fixed order. What can't be used is yielded as `Skipped`, never dropped; what can't be read at
        all (no such file, malformed line) raises `alignzoo.errors.UserError` with file and line."""
        raise NotImplementedError
