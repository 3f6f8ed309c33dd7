"""What a comparison has found: an entry for each run, and what was measured of it, read back from files alone."""

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

from alignzoo.core.files import write_json
from alignzoo.training.run_folder import read_lines

EXAMPLES, SAMPLES, ABOUT = "examples.safetensors", "samples.jsonl", "about.json"


@dataclass(frozen=True)
class EvaluationFolder:
    """A folder `evaluations/<key>` of a run: every held-out row's figures, and the sampled replies with theirs."""

    path: Path

    @cached_property
    def about(self) -> dict[str, Any]:
        """about.json: `ids` of the rows, `sampling` settings, `judges` (name -> {} or {"problem": why})."""
        about: dict[str, Any] = json.loads((self.path / ABOUT).read_text(encoding="utf-8"))
        return about

    @cached_property
    def examples(self) -> dict[str, NDArray[np.float64]]:
        """Name -> (N,) of the held-out rows, in the order of `ids`; nan where a row has no such figure.

        `test` is 1 for rows of the test split and 0 for those of the validation split.
        """
        return load_file(self.path / EXAMPLES)

    @cached_property
    def samples(self) -> list[dict[str, Any]]:
        """A line for each sampled reply: `id`, `test`, `prompt`, `reply`, `chosen`, numbers, and `judges`."""
        return read_lines(self.path / SAMPLES)


@dataclass(frozen=True)
class RunRecord:
    """One run of a comparison."""

    label: str
    """The recipe's name: what a row of the table is called."""
    objective: str
    point: dict[str, Any]
    """The grid point: key -> value; empty without a grid."""
    seed: int
    fingerprint: str
    folder: str
    """The run folder."""
    data: str
    """Fingerprint of the data that it was trained and measured on."""
    start: str | None
    """Fingerprint of the run that it starts from."""
    state: str = "waiting"
    """`waiting`, `done` or `failed`."""
    reason: str = ""
    """Of a failure."""
    measured: str = ""
    """Folder of what was measured, absolute."""
    run: dict[str, float] = field(default_factory=dict)
    """`steps`, `rows` (per step), `seconds`, `pairs_per_second`, `peak_memory_bytes`."""

    @cached_property
    def figures(self) -> EvaluationFolder:
        """What was measured."""
        return EvaluationFolder(Path(self.measured))


def write_results(folder: Path, about: dict[str, Any], entries: Sequence[RunRecord]) -> None:
    """results.json of a comparison's folder."""
    write_json(folder / "results.json", about | {"runs": [asdict(entry) for entry in entries]})


def read_results(folder: Path) -> tuple[dict[str, Any], list[RunRecord]]:
    """What the comparison is about, and its entries."""
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return found, [RunRecord(**entry) for entry in found.pop("runs")]
