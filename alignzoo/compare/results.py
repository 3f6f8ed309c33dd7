"""The results of a comparison: a record for each run, and the figures of each run, read back from files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from alignzoo.core.artifacts import ABOUT
from alignzoo.core.files import write_json
from alignzoo.training.records import read_lines

EXAMPLES, SAMPLES = "examples.safetensors", "samples.jsonl"


@dataclass(frozen=True)
class EvaluationFolder:
    """A folder `evaluations/<key>` of a run: figures of held-out rows, sampled replies, and verdicts on them."""

    path: Path
    verdict_paths: tuple[Path, ...] = ()
    """Folders with the verdicts of each judge, joined to the replies when they are read."""

    @cached_property
    def about(self) -> dict[str, Any]:
        """Contents of about.json: `ids` and `groups` of the rows, `sampling` settings, `reward` scale."""
        return _read(self.path)

    @cached_property
    def judges(self) -> dict[str, dict[str, Any]]:
        """Judge's name -> contents of the about.json of its verdicts."""
        found = [_read(path) for path in self.verdict_paths]
        return {one["judge"]: one for one in found}

    @cached_property
    def examples(self) -> dict[str, NDArray[np.float64]]:
        """Name -> (N,) of the held-out rows, in the order of `ids`; nan where a row has no such figure.

        `test` is 1 for rows of the test split and 0 for those of the validation split.
        """
        return load_file(self.path / EXAMPLES)

    @cached_property
    def samples(self) -> list[dict[str, Any]]:
        """A record for each sampled reply: `id`, `test`, `prompt`, `reply`, `chosen`, numbers, and `judges`.

        `judges` is name -> verdict, without the judges that failed.
        """
        known = {name: about["verdicts"] for name, about in self.judges.items() if not about["problem"]}
        return [
            line | {"judges": {name: verdicts[n] for name, verdicts in known.items()}}
            for n, line in enumerate(read_lines(self.path / SAMPLES))
        ]


def _read(folder: Path) -> dict[str, Any]:
    about: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    return about


@dataclass(frozen=True)
class RunRecord:
    """One run of a comparison."""

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
    """`steps`, `rows` (per step), `seconds`, `pairs_per_second`, `peak_memory_bytes`."""

    @cached_property
    def figures(self) -> EvaluationFolder:
        """Figures, replies and verdicts of the run."""
        return EvaluationFolder(Path(self.measured), tuple(map(Path, self.verdicts)))


def write_results(folder: Path, about: dict[str, Any], records: Sequence[RunRecord]) -> None:
    """Write results.json into a comparison's folder."""
    write_json(folder / "results.json", about | {"runs": [asdict(record) for record in records]})


def read_results(folder: Path) -> tuple[dict[str, Any], list[RunRecord]]:
    """Return the description of a comparison and its records, from results.json."""
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return found, [RunRecord(**record) for record in found.pop("runs")]
