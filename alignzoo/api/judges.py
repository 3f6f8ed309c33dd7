"""`alignzoo.judge`: measure judges and finished runs on labeled preferences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from alignzoo.api.inputs import rows_path
from alignzoo.api.progress import screen_of
from alignzoo.compare.judge_pairs import Split
from alignzoo.compare.judge_report import Measured, measure_judges
from alignzoo.core.errors import UserError
from alignzoo.training.run import RunResult
from alignzoo.training.runs import find_run


def judge(
    data: Any = (),
    *,
    judges: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] = (),
    runs: str | Path | RunResult | Sequence[str | Path | RunResult] = (),
    split: Split | None = None,
    quiet: bool | None = None,
) -> dict[str, Any]:
    """Measure judges against the labels of preference data, as `alignzoo judge` does.

    Args:
        data: A data file, a recipe or a data source as text, or a list of these; or rows in memory, as for `run`. By
            default the held-out rows of the first run.
        judges: Judges: a name, or a mapping with `name` and the judge's fields; or a list of these.
        runs: Finished runs: what `alignzoo.run` returned, a run folder, its name, or a recipe; or a list of these.
        split: Rows of data that divides into training and held-out ones: `held_out`, `validation`, `test`, `train` or
            `all`. By default those of a test split, or else all rows.
        quiet: Print no progress. By default it is shown in a notebook and on a terminal.

    Returns:
        The report, as the command writes it with `-o`.

    Raises:
        UserError: Data, a judge or a run has a mistake.
        RunFailed: Every judge failed.
    """
    if split is not None and split not in get_args(Split):
        raise UserError(f"there is no split '{split}'", where="split", expected=", ".join(get_args(Split)))
    several = [judges] if isinstance(judges, str | Mapping) else [*judges]
    finished = [runs] if isinstance(runs, str | Path | RunResult) else [*runs]
    folders = [one.folder if isinstance(one, RunResult) else find_run(one) for one in finished]
    asked = Measured(_words(data), several, folders, split)
    return measure_judges(asked, screen_of(quiet)).model_dump(mode="json")


def _words(data: Any) -> list[str]:
    """Return what the command line names: rows in memory are written to files."""
    if isinstance(data, str | Path):
        return [str(data)]
    if isinstance(data, list | tuple) and all(isinstance(one, str | Path) for one in data):
        return [str(one) for one in data]
    return [str(rows_path(data))]
