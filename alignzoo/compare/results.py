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


@dataclass(frozen=True)
class EvaluationFolder:
    """Folder `evaluations/<key>` of a run: figures of held-out rows, replies, verdicts.

    The replies are sampled, and the verdicts are on them.
    """

    path: Path
    verdict_paths: tuple[Path, ...] = ()
    """Folders with the verdicts of each judge, joined to the replies when they are read."""

    @cached_property
    def about(self) -> dict[str, Any]:
        """Contents of about.json: rows' `ids` and `groups`, `sampling` settings, `reward` scale."""
        return _about(self.path, FiguresManifest)

    @cached_property
    def judges(self) -> dict[str, dict[str, Any]]:
        """Judge's name -> contents of the about.json of its verdicts."""
        found = [_about(path, VerdictsManifest) for path in self.verdict_paths]
        return {one["judge"]: one for one in found}

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
    run: dict[str, float] = field(default_factory=dict)
    """`steps`, `rows` (per step), `seconds`, `pairs_per_second`, `peak_memory_bytes`, and of the evaluations that chose
    the checkpoint `selecting_evaluations` and `selecting_seconds`, which `seconds` includes."""

    @cached_property
    def figures(self) -> EvaluationFolder:
        """Figures, replies and verdicts of the run."""
        return EvaluationFolder(Path(self.measured), tuple(map(Path, self.verdicts)))


def write_results(folder: Path, about: dict[str, Any], records: Sequence[RunRecord]) -> None:
    """Write results.json into a comparison's folder."""
    write_json(folder / "results.json", about | {"runs": [asdict(record) for record in records]})


def read_results(folder: Path) -> tuple[dict[str, Any], list[RunRecord]]:
    """Return the description of a comparison and its records, from results.json."""
    found = read_checked(folder / "results.json", _Results)
    return found, [RunRecord(**record) for record in found.pop("runs")]


class _Results(BaseModel, extra="allow"):
    """The form of results.json."""

    runs: list[RunRecord]
    name: str = ""
    command: str = ""
    baseline: str | None = None
    select: str | None = None
    samples: dict[str, int | float] | None = None
    allow_different_data: bool = False
    versions: dict[str, str] = {}
    machine: str = ""
