"""Frontiers of a comparison's rows, from the replies that runs recorded along training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from alignzoo.compare.frontier import DRAWS, Checkpoints, Frontiers, Numbers, Reading, dominates, still_rises
from alignzoo.compare.grid import ComparedRow, Point
from alignzoo.compare.results import RunRecord
from alignzoo.evaluation.figures import for_testing
from alignzoo.training.records import REPLIES, SampledReply, read_lines

LEAST_SHARED = 0.8
"""Share of the baseline's prompts that a row must have answered; data of draws lacks a prompt whose draws all tie."""
DRAWN = 60
"""Points of a frontier's line."""


@dataclass(frozen=True)
class Curve:
    """One run: reward against KL at each of its checkpoints, the start first."""

    label: str
    setting: str
    """The grid point in words."""
    seed: int
    steps: list[int]
    prompts: list[str]
    """Digests of the prompts."""
    kl: Numbers
    """KL of each checkpoint's replies to the start, in nats, shape (checkpoints, prompts)."""
    reward: Numbers
    """Of the same shape."""

    def of_prompts(self, some: Set[str]) -> Curve:
        """Return the curve on some of its prompts."""
        kept = [n for n, one in enumerate(self.prompts) if one in some]
        return replace(self, prompts=[self.prompts[n] for n in kept], kl=self.kl[:, kept], reward=self.reward[:, kept])

    @property
    def still_rises(self) -> bool:
        """True if the reward still rises over the last two checkpoints, beyond noise."""
        return len(self.reward) > 1 and still_rises(self.reward[-1], self.reward[-2])


@dataclass(frozen=True)
class RowFrontier:
    """The frontier of one row of the table."""

    label: str
    settings: int
    checkpoints: int
    """Checkpoints of each run after the start."""
    readings: list[Reading]
    line: list[tuple[float, float]]
    """(KL, reward) of the frontier where it is reached, to be drawn."""
    differences: list[Reading] = field(default_factory=list)
    """Less the baseline's; empty for the baseline, and where it has no frontier."""
    rising: list[str] = field(default_factory=list)
    """Settings that have not converged in every seed."""

    @property
    def dominance(self) -> bool | None:
        """True where it is above the baseline at every KL that both reach.

        It is None if that can't be claimed: a row with settings that still rise claims nothing.
        """
        return None if self.rising or not self.differences else dominates(self.differences)


@dataclass(frozen=True)
class FrontierTable:
    """Frontiers of reward against KL of every row that recorded replies along training."""

    reward: str
    """The judge whose score is the reward."""
    kl: list[float]
    rows: list[RowFrontier]
    curves: list[Curve]
    seeds: list[int]
    prompts: int
    baseline: str
    left_out: dict[str, str]
    """Row -> why it has no frontier."""

    @property
    def equal_budgets(self) -> bool:
        """True if every row has the same number of settings and of checkpoints."""
        return len({(row.settings, row.checkpoints) for row in self.rows}) < 2


class NoCurve(Exception):
    """A run has no curve; the message says why."""


def frontier_table(about: Mapping[str, Any], rows: Sequence[ComparedRow], draws: int = DRAWS) -> FrontierTable | None:
    """Return the frontiers of a comparison; None if it asks for none, or no row has one.

    Args:
        about: The comparison, with `frontier` and `baseline`.
        rows: Its rows.
        draws: Draws of the bootstrap.
    """
    wanted = about.get("frontier")
    if not wanted:
        return None
    judge, at = str(wanted["reward"]), [float(one) for one in wanted["kl"]]
    baseline = str(about.get("baseline", ""))
    found: dict[str, list[Curve]] = {}
    left_out: dict[str, str] = {}
    prompts: set[str] = set()
    for row in sorted(rows, key=lambda row: row.label != baseline):  # the baseline's prompts and seeds count
        if row.start:
            continue
        try:
            own = _curves(row, judge)
            shared = set.intersection(prompts or set(own[0].prompts), *(set(curve.prompts) for curve in own))
            if len(shared) < LEAST_SHARED * len(prompts or own[0].prompts):
                raise NoCurve("its runs answered other prompts")
            prompts, found[row.label] = shared, own
        except NoCurve as problem:
            left_out[row.label] = str(problem)
    seeds = sorted(set.intersection(*map(_complete_seeds, found.values()))) if found else []
    if not seeds:
        return None
    found = {label: [curve.of_prompts(prompts) for curve in own] for label, own in found.items()}
    methods = {label: _checkpoints(own, seeds) for label, own in found.items()}
    halves = for_testing(sorted(prompts))
    frontiers = Frontiers(methods, halves, at, draws)
    farthest = max(float(kl.mean(1).max()) for one in methods.values() for kl in one.kl)
    lines = Frontiers(methods, halves, np.linspace(0, farthest, DRAWN).tolist(), draws=0)
    made = [
        RowFrontier(
            label, len({curve.setting for curve in own}), max(len(curve.steps) for curve in own) - 1,
            frontiers.of(label),
            [(one.kl, one.value) for one in lines.of(label) if one.value is not None],
            frontiers.difference(label, baseline) if baseline in found and label != baseline else [],
            sorted({curve.setting for curve in own if curve.still_rises}),
        )
        for label, own in found.items()
    ]  # fmt: skip
    every = [curve for own in found.values() for curve in own]
    return FrontierTable(judge, at, made, every, seeds, len(prompts), baseline, left_out)


def read_curve(label: str, point: Point, run: RunRecord, judge: str) -> Curve:
    """Return the curve of a finished run.

    Raises:
        NoCurve: The run recorded no replies, or none with this judge's score and a KL.
    """
    path = Path(run.folder) / REPLIES
    if not path.is_file():
        raise NoCurve("its runs recorded no replies along training: set eval.replies.every")
    by_step: dict[int, dict[str, tuple[float, float]]] = {}
    for line in read_lines(path, SampledReply):
        score, kl = line.get("judges", {}).get(judge, {}).get("reward"), line.get("kl")
        if score is None or kl is None:
            raise NoCurve(f"a reply has no {'KL' if kl is None else f'score of {judge}'}")
        by_step.setdefault(line["step"], {})[line["prompt"]] = (float(kl), float(score))
    steps, prompts = sorted(by_step), sorted(by_step[min(by_step)])
    if any(sorted(own) != prompts for own in by_step.values()):
        raise NoCurve("its checkpoints answered different prompts")
    values = np.array([[by_step[step][one] for one in prompts] for step in steps])
    return Curve(label, point.description, run.seed, steps, prompts, values[:, :, 0], values[:, :, 1])


def _curves(row: ComparedRow, judge: str) -> list[Curve]:
    found = [read_curve(row.label, point, run, judge) for point in row.points for run in point.done]
    if not found:
        raise NoCurve("no run is done")
    return found


def _complete_seeds(curves: Sequence[Curve]) -> set[int]:
    """Return the seeds that every setting has."""
    by_setting: dict[str, set[int]] = {}
    for curve in curves:
        by_setting.setdefault(curve.setting, set()).add(curve.seed)
    return set.intersection(*by_setting.values())


def _checkpoints(curves: Sequence[Curve], seeds: Sequence[int]) -> Checkpoints:
    """Join the checkpoints of a row's settings; the start is a point of each."""
    own = [[curve for curve in curves if curve.seed == seed] for seed in seeds]
    return Checkpoints(
        [np.vstack([curve.kl for curve in some]) for some in own],
        [np.vstack([curve.reward for curve in some]) for some in own],
    )
