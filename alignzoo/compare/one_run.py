"""The work on one run of a comparison in this process: train it and measure it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from alignzoo.compare.best_of import BestOf
from alignzoo.compare.gather import run_figures
from alignzoo.compare.judge_runs import JudgeRuns
from alignzoo.compare.live_table import RunScreen
from alignzoo.compare.measure import EvaluationSet, measure
from alignzoo.compare.results import Drawn, EvaluationFolder
from alignzoo.compare.spec import Comparison
from alignzoo.core.console import Screen
from alignzoo.core.errors import RunFailed, UserError, first_line
from alignzoo.interfaces.judge import Judge
from alignzoo.recipe.resolved import Resolved
from alignzoo.training.headline import headline
from alignzoo.training.run import RunResult, run_resolved


@dataclass(frozen=True)
class RunOutcome:
    """The end of a run, as plain data: the folders of its figures, or the reason of a failure."""

    reason: str = ""
    words: str = ""
    """The end in words, for the live table."""
    measured: str = ""
    """Absolute path of the folder with its figures."""
    verdicts: Sequence[str] = ()
    """Absolute paths of the folders with each judge's verdicts."""
    drawn: Sequence[Drawn] = ()
    """Replies at further temperatures, and the draws of best-of-N."""
    run: Mapping[str, float] = field(default_factory=dict)
    """Figures of the training, as in `RunRecord`."""
    machine: str = ""
    """The hardware that it was worked on."""

    @classmethod
    def failed(cls, reason: str) -> RunOutcome:
        """Return the end of a run that failed."""
        return cls(reason, f"failed: {reason}")

    @classmethod
    def of_plain(cls, values: Mapping[str, Any]) -> RunOutcome:
        """Return the end of a run from the values of `dataclasses.asdict`."""
        return cls(**{**values, "drawn": tuple(Drawn(**one) for one in values.get("drawn", ()))})


def work_on(
    resolved: Resolved, comparison: Comparison, judges: Sequence[Judge], screen: RunScreen, measured: bool = True,
    best_of: BestOf | None = None, judge_runs: JudgeRuns | None = None,
) -> RunOutcome:  # fmt: skip
    """Train a run, unless it is finished, and measure it; return how that ended.

    Args:
        resolved: The run's recipe.
        comparison: How replies are sampled.
        judges: Judges of the replies.
        screen: Where progress is shown.
        measured: False for a run that is only trained.
        best_of: The N of best-of-N, and the judge that picks. None for no further draws.
        judge_runs: The judges with the runs that they need, where any needs one. They come first.
    """
    try:
        result = run_resolved(resolved, wait=True, screen=screen)
        words = _done_words(result.summary)
        if not measured:
            return RunOutcome(words=words, machine=machine())
        made_by: Mapping[str, str] = {}
        if judge_runs is not None:
            judge_runs.make_runs(screen)
            judges, made_by = judge_runs.judges, judge_runs.made_by
        screen.state("measuring")
        found = _measured(resolved, result, comparison, judges, made_by, screen, best_of=best_of)
    except (UserError, RunFailed) as error:
        return RunOutcome.failed(first_line(error))
    except Exception as error:  # a plugin's objective may fail in any way; the other runs go on
        return RunOutcome.failed(f"{type(error).__name__}: {first_line(error)}")
    verdicts = [str(path.absolute()) for path in found.verdict_paths]
    run, folder = run_figures(result.summary), str(found.path.absolute())
    return RunOutcome("", words, folder, verdicts, found.drawn, run, machine())


def _done_words(summary: Mapping[str, Any]) -> str:
    """Return `done`, with the first figure of the run's headline before and after training."""
    figures = headline(summary.get("eval", {}), summary.get("accuracy_of", {}))
    first = next((replace(figure, about="") for figure in figures if figure.after is not None), None)
    return f"done, {first.label} {first.words}" if first else "done"


def _measured(
    resolved: Resolved, result: RunResult, comparison: Comparison, judges: Sequence[Judge],
    made_by: Mapping[str, str], screen: Screen, rows: EvaluationSet | None = None, best_of: BestOf | None = None,
) -> EvaluationFolder:  # fmt: skip
    """Measure a run, after the run that it starts from.

    The judges compare with the start's replies to the same prompts.
    """
    start = None
    rows = rows or EvaluationSet.measured_of(resolved, result.folder)
    if resolved.start is not None:
        below = run_resolved(resolved.start, wait=True, screen=screen)
        start = _measured(resolved.start, below, comparison, judges, made_by, screen, rows)
    return measure(resolved, result.folder, comparison.samples, judges, start, screen, rows, best_of, made_by)


def machine() -> str:
    """Return a description of the hardware that times are measured on."""
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"{platform.machine()} CPU, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
