"""Results of a comparison, read back from files: records and figures of each run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from alignzoo.core.arrays import mmap_safetensors
from alignzoo.core.artifacts import Manifest
from alignzoo.core.door import BadFile, read_checked
from alignzoo.core.files import write_json
from alignzoo.core.paths import ABOUT
from alignzoo.training.records import read_lines

EXAMPLES, SAMPLES = "examples.safetensors", "samples.jsonl"
REPLIES = "replies"
"""Folder, inside of a run's `evaluations`, of replies without figures of held-out rows."""


@dataclass(frozen=True)
class RepliesFolder:
    """Folder `evaluations/replies/<key>` of a run: sampled replies, and verdicts on them."""

    path: Path
    verdict_paths: tuple[Path, ...] = ()
    """Folders with the verdicts of each judge, joined to the replies when they are read."""

    @cached_property
    def about(self) -> dict[str, Any]:
        """Contents of about.json: `sampling` settings, and of a folder of figures more."""
        return _about(self.path, self._manifest)

    @property
    def _manifest(self) -> type[Manifest]:
        return RepliesManifest

    @cached_property
    def judges(self) -> dict[str, dict[str, Any]]:
        """Judge's name -> contents of the about.json of its verdicts."""
        found = [_about(path, VerdictsManifest) for path in self.verdict_paths]
        return {one["judge"]: one for one in found}

    @cached_property
    def samples(self) -> list[dict[str, Any]]:
        """Sampled replies: `id`, `test`, `prompt`, `reply`, `chosen`, numbers and `judges`.

        `judges` is name -> verdict, without the judges that failed.
        """
        lines = read_lines(self.path / SAMPLES, Reply)
        known = {name: about["verdicts"] for name, about in self.judges.items() if not about["problem"]}
        for name, verdicts in known.items():
            if len(verdicts) != len(lines):
                what = f"{len(verdicts):,} verdicts of {name:.80} for {len(lines):,} replies"
                raise BadFile(f"damaged: {what}", where=str(self.path))
        return [
            line | {"judges": {name: verdicts[n] for name, verdicts in known.items()}} for n, line in enumerate(lines)
        ]


@dataclass(frozen=True)
class EvaluationFolder(RepliesFolder):
    """Folder `evaluations/<key>` of a run: figures of held-out rows, replies, verdicts.

    The replies are sampled, and the verdicts are on them.
    """

    drawn: tuple[Drawn, ...] = ()
    """Further replies to the same prompts: at other temperatures, and several of which the best is measured."""

    @property
    def _manifest(self) -> type[Manifest]:
        return FiguresManifest

    def at(self, temperature: float) -> RepliesFolder | None:
        """Return the single replies at a temperature, or None if there are none."""
        if temperature == self.temperature:
            return self
        found = (one for one in self.drawn if one.draws == 1 and one.temperature == temperature)
        return next((one.folder for one in found), None)

    @property
    def temperature(self) -> float | None:
        """The temperature of the evaluation's own replies."""
        return (self.about.get("sampling") or {}).get("temperature")

    @cached_property
    def examples(self) -> dict[str, NDArray[np.float64]]:
        """Name -> figures of the held-out rows, shape (N,), in the order of `ids`.

        They are nan where a row has no such figure. `test` is 1 for rows of the test split and 0 for those of the
        validation split.
        """
        path = self.path / EXAMPLES
        found = mmap_safetensors(path)
        rows = len(self.about["ids"])
        for name, values in found.items():
            if values.dtype != np.float64 or values.shape != (rows,):
                raise BadFile(f"damaged: '{name:.80}' is not one number for each of {rows:,} rows", where=str(path))
        if "test" not in found:
            raise BadFile("damaged: it lacks 'test'", where=str(path))
        return found


@dataclass(frozen=True)
class Drawn:
    """Further replies of a run to the prompts of its evaluation, as results.json names them."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    temperature: float
    replies: str
    """Absolute path of the folder with the replies."""
    verdicts: Sequence[str] = ()
    """Absolute paths of the folders with each judge's verdicts."""
    draws: int = 1
    """Replies to each prompt."""
    counts: Sequence[int] = ()
    """The N of best-of-N that are estimated from the draws."""
    picked_by: str = ""
    """Name of the judge whose score picks the best draw."""
    scores: str = ""
    """Absolute path of the folder with that judge's scores."""

    @cached_property
    def folder(self) -> RepliesFolder:
        """The replies with their verdicts."""
        return RepliesFolder(Path(self.replies), tuple(map(Path, self.verdicts)))

    @cached_property
    def picker(self) -> dict[str, Any]:
        """Contents of the about.json of the scores that pick the best draw."""
        return _about(Path(self.scores), VerdictsManifest)


class RepliesManifest(Manifest):
    """The about.json of a folder of replies alone."""

    sampling: dict[str, int | float]
    tokens: str
    draws: int = 1


class FiguresManifest(Manifest):
    """The about.json of a folder of figures and replies."""

    sampling: dict[str, int | float] | None
    tokens: str
    ids: list[str]
    groups: list[str] = Field(default_factory=list)
    reward: list[Any] = Field(default_factory=list)

    @model_validator(mode="after")
    def _fits(self) -> FiguresManifest:
        if "groups" in self.model_fields_set and len(self.groups) != len(self.ids):
            raise ValueError(f"{len(self.groups):,} groups of {len(self.ids):,} ids")
        return self


class VerdictsManifest(Manifest):
    """The about.json of a folder of verdicts."""

    evaluation: str
    judge: str
    version: str
    over_start: bool
    problem: str
    verdicts: list[dict[str, float | None]]
    first: bool = False
    """True if only the best of the first N draws, for each N, have verdicts; the others have none."""


class Reply(BaseModel, extra="allow"):
    """A line of samples.jsonl in a folder of figures, with its numbers by name."""

    id: str
    test: bool | int
    prompt: str
    reply: str
    chosen: str
    length: int | float | None = None
    finished: bool | None = None
    kl: float | None = None
    log_ratio: float | None = None
    entropy: float | None = None
    distinct_2: float | None = None


def _about(folder: Path, schema: type[Manifest]) -> dict[str, Any]:
    about: dict[str, Any] = read_checked(folder / ABOUT, schema)
    return about


@dataclass(frozen=True)
class RunRecord:
    """One run of a comparison."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    label: str
    """Name of the recipe, and of its row in the table."""
    objective: str
    point: dict[str, Any]
    """Grid point: key -> value; empty without a grid."""
    seed: int
    fingerprint: str
    folder: str
    """Path of the run folder."""
    data: str
    """Fingerprint of the data that the run was trained and measured on."""
    start: str | None
    """Fingerprint of the run that it starts from."""
    state: str = "waiting"
    """`waiting`, `done` or `failed`."""
    reason: str = ""
    """Reason of a failure."""
    measured: str = ""
    """Absolute path of the folder with its figures."""
    verdicts: Sequence[str] = ()
    """Absolute paths of the folders with each judge's verdicts."""
    drawn: Sequence[Drawn] = ()
    """Replies at further temperatures, and the draws of best-of-N; none in results of an older version."""
    run: dict[str, float] = field(default_factory=dict)
    """`steps`, `rows` (per step), `seconds`, `pairs_per_second`, `peak_memory_bytes`, and of the evaluations that chose
    the checkpoint `selecting_evaluations` and `selecting_seconds`, which `seconds` includes."""

    @cached_property
    def figures(self) -> EvaluationFolder:
        """Figures, replies and verdicts of the run."""
        return EvaluationFolder(Path(self.measured), tuple(map(Path, self.verdicts)), tuple(self.drawn))


def write_results(folder: Path, about: dict[str, Any], records: Sequence[RunRecord]) -> None:
    """Write results.json into a comparison's folder."""
    write_json(folder / "results.json", about | {"runs": [asdict(record) for record in records]})


def read_results(folder: Path) -> tuple[dict[str, Any], list[RunRecord]]:
    """Return the description of a comparison and its records, from results.json."""
    found = read_checked(folder / "results.json", _Results)
    runs = found.pop("runs")
    return found, [RunRecord(**run | {"drawn": tuple(Drawn(**one) for one in run.get("drawn", ()))}) for run in runs]


class _Results(BaseModel, extra="allow"):
    """The form of results.json."""

    runs: list[RunRecord]
    name: str = ""
    command: str = ""
    baseline: str | None = None
    select: str | None = None
    samples: dict[str, int | float | list[float]] | None = None
    allow_different_data: bool = False
    versions: dict[str, str] = {}
    machine: str = ""
