"""Measure judges on labeled preferences, and describe the result as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from alignzoo import __version__
from alignzoo.compare.eval_data import read_sets
from alignzoo.compare.judge_figures import agreement, best_of_n, figures_of, labels_figures
from alignzoo.compare.judge_pairs import Pairs, Split, open_source, read_pairs
from alignzoo.compare.judge_verdicts import RunJudge, Verdicts, ask_judge, check_judge, problem_of, settings_of
from alignzoo.compare.spec import make_judges
from alignzoo.core.console import Screen
from alignzoo.core.errors import RunFailed, UserError
from alignzoo.data.content import Hashes
from alignzoo.interfaces.judge import Judge
from alignzoo.recipe.parse import COMMAND_LINE, Origin, from_value


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Figure(_Part):
    """A mean with its 95% interval; a bound is null where there is none."""

    title: str
    mean: float | None
    low: float | None
    high: float | None
    se: float | None
    n: int
    """Number of pairs, or of rows."""
    prompts: int
    parts: dict[str, float] | None = None
    """Of the subset Ties of RewardBench 2: the parts of its score."""


class Agreement(_Part):
    """How often two judges have the same verdict."""

    judges: tuple[str, str]
    """Their labels; the first may be `labels`, those of the data."""
    equal: Figure
    kappa: Figure | None


class JudgeResult(_Part):
    """A judge on one set."""

    kind: str = ""
    figures: dict[str, Figure] = {}
    best_of_n: dict[str, Figure] = {}
    without_verdict: int = 0
    """Pairs without a verdict."""
    unreadable: dict[str, int] = {}
    """Reason -> rows that a run can't score."""
    cut: int = 0
    """Prompts, and rows of completions, that a run reads cut to its `tokens.max_length`."""
    trained_on: int | None = None
    """Prompts of the set that the run was trained on; null for a judge, or where that is not known."""
    problem: str = ""
    """Reason of a failure."""


class SetResult(_Part):
    """All judges on one set."""

    rows: int
    pairs: int
    prompts: int
    """Prompt groups, by which intervals are clustered."""
    skipped: dict[str, int]
    """Reason -> rows, and pairs of lists, that are left out."""
    labels: dict[str, Figure]
    judges: dict[str, JudgeResult]
    agreement: list[Agreement]


class JudgeReport(_Part):
    """The report of `alignzoo judge`."""

    alignzoo: str
    split: str | None
    data: dict[str, dict[str, Any]]
    """Data source of each set."""
    judges: dict[str, dict[str, Any]]
    """Label -> the judge's fields; `run` of a run."""
    sets: dict[str, SetResult]


@dataclass(frozen=True)
class Measured:
    """What is measured, on what."""

    data: Sequence[str]
    """Sets: see `read_sets`. None are the held-out rows of the first run."""
    judges: Sequence[Any] = ()
    """Judges as a recipe writes them."""
    runs: Sequence[Path] = ()
    """Folders of finished runs."""
    split: Split | None = None


def measure_judges(asked: Measured, screen: Screen) -> JudgeReport:
    """Measure every judge and run on every set.

    A judge that fails costs its own figures alone.

    Raises:
        UserError: Nothing to measure is named, or data, a judge or a run has a mistake.
        RunFailed: Every judge failed.
    """
    if not asked.judges and not asked.runs:
        raise UserError("no judge is named", where="--judge", expected="--judge NAME, or --run RUN")
    judges = labeled_judges(asked.judges)
    for judge in judges.values():
        check_judge(judge)
    runs = _labeled_runs([RunJudge(folder, screen) for folder in asked.runs], set(judges))
    data, split = _data(asked)
    sets = {name: read_pairs(name, open_source(name, plain), split) for name, plain in data.items()}
    verdicts: dict[str, dict[str, Verdicts]] = {name: {} for name in sets}
    problems: dict[str, dict[str, str]] = {name: {} for name in sets}
    seen: dict[str, Hashes | None] = {}
    for label, judge in judges.items():
        for name, pairs in sets.items():
            try:
                verdicts[name][label] = ask_judge(judge, pairs, label, screen)
            except (Exception, SystemExit) as error:  # a judge may fail in any way
                problems[name][label] = problem_of(label, error, screen)
    described = {label: settings_of(judge) for label, judge in judges.items()}
    for label, run in runs.items():
        labels = dict(zip(run.kinds, (label, f"{label} likelihood"), strict=False))
        hashes = run.trained_on()
        for name, pairs in sets.items():
            verdicts[name] |= {labels[kind]: own for kind, own in run.verdicts(pairs).items()}
            _warn_of_training(label, name, pairs, hashes, screen)
        described |= {own: {"run": str(run.folder.absolute()), "kind": kind} for kind, own in labels.items()}
        seen |= dict.fromkeys(labels.values(), hashes)
        run.close()
    if not any(verdicts.values()):
        reasons = dict.fromkeys(reason for own in problems.values() for reason in own.values())
        raise RunFailed(f"every judge failed: {'; '.join(reasons)}")
    results = {
        name: _result(pairs, list(described), verdicts[name], problems[name], seen) for name, pairs in sets.items()
    }
    return JudgeReport(alignzoo=__version__, split=split, data=data, judges=described, sets=results)


def _data(asked: Measured) -> tuple[dict[str, dict[str, Any]], Split | None]:
    """Return the node of each set, and the split that is read."""
    if asked.data:
        return read_sets(asked.data, whole=asked.split is not None), asked.split
    if not asked.runs:
        raise UserError("no data is named", where="DATA", expected="a data file, a recipe, or {name: ..., fields}")
    (source,) = read_sets([str(asked.runs[0] / "recipe.yaml")], whole=True).values()
    return {asked.runs[0].name: source}, asked.split or "held_out"


def labeled_judges(given: Sequence[Any]) -> dict[str, Judge]:
    """Return the judges by name, with the fields in which judges of one name differ.

    Raises:
        UserError: A judge has a mistake, or is there twice.
    """
    found: list[Judge] = []
    for one in given:
        (judge,) = make_judges([one], from_value({"judges": [one]}, Origin(COMMAND_LINE)))
        found.append(judge)
    labels: dict[str, Judge] = {}
    for judge in found:
        own = judge.model_dump(mode="json")
        alike = [other.model_dump(mode="json") for other in found if other.name == judge.name]
        differs = [f"{key}={value}" for key, value in own.items() if any(other[key] != value for other in alike)]
        label = f"{judge.name} ({', '.join(differs)})"[:100] if differs else judge.name
        if label in labels:
            raise UserError(f"the judge {label} is there twice", where="--judge", expected="each judge once")
        labels[label] = judge
    return labels


def _labeled_runs(runs: Sequence[RunJudge], taken: set[str]) -> dict[str, RunJudge]:
    """Return runs by the name of their recipe, or of their folder where that is taken."""
    names = [run.resolved.recipe.name for run in runs]
    found: dict[str, RunJudge] = {}
    for run, name in zip(runs, names, strict=True):
        label = run.folder.name if names.count(name) > 1 or name in taken else name
        if label in found:
            raise UserError(f"the run {label} is there twice", where="--run", expected="each run once")
        found[label] = run
    return found


def _warn_of_training(label: str, name: str, pairs: Pairs, seen: Hashes | None, screen: Screen) -> None:
    common = 0 if seen is None else int(np.isin(pairs.prompts, seen).sum())
    if common:
        screen.info(
            f"warning: {label} was trained on {common:,} of the {len(pairs.prompts):,} prompts of {name}, so that its "
            "figures there are not those of new prompts"
        )


def _result(
    pairs: Pairs, labels: Sequence[str], verdicts: Mapping[str, Verdicts], problems: Mapping[str, str],
    seen: Mapping[str, Hashes | None],
) -> SetResult:  # fmt: skip
    judges = {
        label: {"problem": problems[label]} if label in problems else _judge(verdicts[label], pairs, seen.get(label))
        for label in labels
    }
    return SetResult.model_validate({
        "rows": len(pairs.rows), "pairs": len(pairs), "prompts": len(set(pairs.groups.tolist())),
        "skipped": pairs.skipped, "labels": labels_figures(pairs), "judges": judges,
        "agreement": agreement(verdicts, pairs),
    })  # fmt: skip


def _judge(verdicts: Verdicts, pairs: Pairs, seen: Hashes | None) -> dict[str, Any]:
    return {
        "kind": verdicts.kind,
        "figures": figures_of(verdicts, pairs),
        "best_of_n": best_of_n(verdicts, pairs),
        "without_verdict": int(np.isnan(verdicts.values).sum()),
        "unreadable": dict(verdicts.without),
        "cut": verdicts.cut,
        "trained_on": None if seen is None else int(np.isin(pairs.prompts, seen).sum()),
    }
