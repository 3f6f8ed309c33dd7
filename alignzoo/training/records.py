"""The form of the files of a run folder, each of which is checked when it is read again."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, FiniteFloat

from alignzoo.core.artifacts import Manifest
from alignzoo.core.door import MissingFile, read_json, read_json_lines
from alignzoo.interfaces.data_source import PART_NAME

Role = Literal["system", "user", "assistant", "tool", "text"]
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[FiniteFloat, Field(ge=0)]
Figures = dict[str, int | float | str | None]
SETTINGS = "settings"
"""Kind of the line of metrics.jsonl on settings that were changed: key -> `before -> after`."""


class Line(BaseModel, extra="allow"):
    """A line of metrics.jsonl, with figures by name."""

    kind: str
    step: Count


class Timing(BaseModel, extra="allow"):
    """A line of timings.jsonl."""

    step: Count
    seconds: Amount
    pairs: Count
    tokens: Count


class EvaluationTime(BaseModel, extra="allow"):
    """A line of evaluation_times.jsonl."""

    step: Count
    seconds: Amount


class Sample(BaseModel, extra="allow"):
    """A line of samples.jsonl, with replies and completions by name."""

    id: str
    prompt: str


class Part(BaseModel, extra="allow"):
    """The prompt or a completion of a row in rows.jsonl."""

    name: str
    tokens: Count
    scored: Count
    pieces: list[tuple[Role, bool, list[str]]]


HELD_OUT = "held_out.jsonl"
"""Records of the held-out rows in the last evaluation."""
REPLIES = "replies.jsonl"
"""Sampled replies to held-out prompts along training."""


class HeldOutRow(BaseModel, extra="allow"):
    """A line of held_out.jsonl, with the row's figures by name.

    Those without a value are left out.
    """

    id: str
    margin: FiniteFloat | None = None
    chosen_length: Amount | None = None
    rejected_length: Amount | None = None
    chosen_log_ratio: FiniteFloat | None = None
    gradient_weight: Amount | None = None


class SampledReply(BaseModel, extra="allow"):
    """A line of replies.jsonl: a sampled reply after a step, with verdicts by judge's name."""

    step: Count
    id: str
    prompt: str
    """Digest of the prompt's token ids; one prompt may be of several rows, and of rows of several recipes."""
    reply: str
    length: Count
    finished: bool
    kl: FiniteFloat | None = None
    log_ratio: FiniteFloat | None = None
    judges: dict[str, dict[str, FiniteFloat | None]] = {}


class ShownRow(BaseModel, extra="allow"):
    """A line of rows.jsonl: a row as the model sees it."""

    id: str
    split: str
    cut: Count
    parts: list[Part]


class _Train(BaseModel, extra="allow"):
    steps: Count
    pairs: Count
    seconds: Amount
    pairs_per_second: Amount


class Summary(BaseModel, extra="allow"):
    """The summary.json of a finished run: what other commands read of it."""

    finished: bool
    name: str
    fingerprint: str
    train: _Train
    versions: dict[str, str]
    peak_memory_bytes: Count
    eval: Figures = {}
    model: dict[str, Any] = {}
    objective: dict[str, Any] = {}
    data: dict[str, Any] = {}
    reference: dict[str, Any] = {}
    judges: dict[str, Figures] = {}
    accuracy_of: dict[str, str] = {}


class MeasuredModel(BaseModel, extra="allow"):
    """Section `model` of the summary.json of a measured run: fingerprints of weights."""

    weights: str
    trained_weights: str


class CheckpointManifest(Manifest):
    """The about.json of a checkpoint."""

    step: Annotated[int, Field(gt=0)]
    objective: list[dict[str, float]]
    budget: Count
    run: str
    """Fingerprint of the run."""
    lineage: str = ""
    """Digest of the run without its length."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings that are no part of the fingerprint."""


def set_names(figures: Iterable[str]) -> list[str]:
    """Return the names of the evaluation sets that have figures.

    `figures` are keys such as `NAME/loss` and `NAME/n`.
    """
    found = (key.removesuffix("/n") for key in figures if key.endswith("/n"))
    return [name for name in found if re.fullmatch(PART_NAME, name)]


def read_lines(path: Path, schema: type[BaseModel] | None = None, nan: bool = False) -> list[dict[str, Any]]:
    """Return the values of a JSON lines file; none without the file.

    A last line that a crash has cut is left out.

    Args:
        path: The file.
        schema: The form of each line.
        nan: Accept NaN and Infinity, which alignzoo does not write.

    Raises:
        BadFile: Another line is damaged or not of the form of `schema`.
    """
    try:
        return list(read_json_lines(path, schema, nan))
    except MissingFile:
        return []


def read_data_report(folder: Path) -> dict[str, Any]:
    """Return data.json of a run folder; {} of a run that has not read its data yet."""
    try:
        return read_json(folder / "data.json", dict[str, Any])
    except MissingFile:
        return {}


def as_table(rows: list[dict[str, Any]]) -> Any:
    """Return records as a pandas DataFrame, or as they are where pandas is not installed."""
    try:
        import pandas
    except ImportError:
        return rows
    return pandas.DataFrame.from_records(rows)
