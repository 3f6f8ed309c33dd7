"""Best of N as an axis of a comparison: the judge that picks, and its scores of the draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignzoo.compare.judge_runs import JudgeRuns
from alignzoo.compare.results import RepliesFolder, VerdictsManifest
from alignzoo.compare.spec import Comparison, no_such_row
from alignzoo.compare.verdicts import judge_replies
from alignzoo.core.console import Screen
from alignzoo.core.door import read_checked
from alignzoo.core.errors import UserError
from alignzoo.core.paths import ABOUT
from alignzoo.evaluation.best_of_draws import first_best, score_table
from alignzoo.interfaces.component import Component
from alignzoo.interfaces.judge import Judge
from alignzoo.recipe.resolved import Resolved


@dataclass(frozen=True)
class BestOf:
    """The N of best-of-N, and the judge whose score picks the best draw."""

    counts: tuple[int, ...]
    """Every N, rising."""
    picker: JudgeRuns
    """The judge, and the run that it needs, if any."""
    labels: tuple[str, ...] | None
    """Rows that are measured; None for all."""

    @classmethod
    def of(cls, comparison: Comparison, labels: Sequence[str], classes: Sequence[type[Component]]) -> BestOf | None:
        """Return what a comparison asks for, or None.

        Args:
            comparison: The comparison.
            labels: Labels of its rows.
            classes: Classes that its recipes may name.

        Raises:
            UserError: The judge has a mistake or gives no scores, or there is no such row.
        """
        if not comparison.best_of:
            return None
        for label in comparison.best_of_rows or ():
            if label not in labels:
                raise no_such_row(label, "best_of_rows", labels)
        picker = JudgeRuns.of([comparison.best_of_judge], "best_of_judge", comparison, classes)
        found = cls(comparison.best_of, picker, comparison.best_of_rows)
        if found.judge.only_compares:
            raise UserError(
                f"the judge {found.judge.name} gives no scores to pick the best draw by", where="best_of_judge",
                expected="a judge with scores, such as reward_model or classifier",
            )  # fmt: skip
        found.judge.ready()
        return found

    @property
    def judge(self) -> Judge:
        """The judge whose score picks the best draw."""
        return self.picker.judges[0]

    @property
    def draws(self) -> int:
        """Draws for each prompt."""
        return max(self.counts)

    def measures(self, label: str) -> BestOf | None:
        """Return this for a row that best-of-N is measured of, else None."""
        return self if self.labels is None or label in self.labels else None

    def scores(self, resolved: Resolved, run: Path, replies: RepliesFolder, screen: Screen) -> Path:
        """Return the folder with the judge's scores of a run's draws, or with its problem.

        Args:
            resolved: Recipe of the run that has drawn.
            run: Its folder.
            replies: Its draws.
            screen: Shows messages.
        """
        self.picker.make_runs(screen)
        made_by = self.picker.made_by.get(self.judge.name, "")
        return judge_replies(self.judge, resolved, run, replies, None, screen, made_by=made_by, picks=True)

    def picked(self, scores: Path, replies: RepliesFolder) -> list[int]:
        """Return the places of the draws that are the best of the first N for some N."""
        about = _about(scores)
        if about["problem"] or not replies.samples:
            return []
        table = score_table(about["verdicts"], self.draws)
        used = np.zeros(table.shape, np.bool_)
        for count in self.counts:
            used |= first_best(table, count) > 0
        return [int(place) for place in np.flatnonzero(used)]


def _about(path: Path) -> dict[str, Any]:
    about: dict[str, Any] = read_checked(path / ABOUT, VerdictsManifest)
    return about
