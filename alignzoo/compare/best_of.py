"""Best of N as an axis of a comparison: the judge that picks, and its scores of the draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np

from alignzoo.compare.results import RepliesFolder, VerdictsManifest
from alignzoo.compare.spec import Comparison, no_such_row
from alignzoo.compare.verdicts import judge_replies
from alignzoo.compare.written import Written
from alignzoo.core.console import Screen
from alignzoo.core.digests import digest
from alignzoo.core.door import read_checked
from alignzoo.core.errors import UserError
from alignzoo.core.paths import ABOUT
from alignzoo.evaluation.best_of_draws import first_best, score_table
from alignzoo.interfaces.component import Component
from alignzoo.interfaces.judge import Judge
from alignzoo.recipe.resolved import Resolved
from alignzoo.training.needed_runs import open_judges
from alignzoo.training.run import run_resolved

AT = "eval.judges.0"
"""Where the picking judge stands in the recipe that resolves it."""


@dataclass(frozen=True)
class BestOf:
    """The N of best-of-N, and the judge whose score picks the best draw."""

    counts: tuple[int, ...]
    """Every N, rising."""
    resolved: Resolved
    """A recipe of the comparison with the judge under `eval.judges`, and the run that the judge needs, if any."""
    labels: tuple[str, ...] | None
    """Rows that are measured; None for all."""
    written: Written
    """What `resolved` was loaded from."""

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
        words = (*comparison.overrides, f"eval.judges={dumps([comparison.best_of_judge])}")
        written = Written(comparison.recipes[0], words, comparison.overlays)
        try:
            resolved = written.resolve(classes)
        except UserError as error:
            moved = [
                replace(one, what=one.what.replace(f"{AT}.", "").replace(f"{AT}: ", ""), where="best_of_judge")
                if AT in one.what else one for one in error.problems
            ]  # fmt: skip
            raise type(error)(moved) from None
        found = cls(comparison.best_of, resolved, comparison.best_of_rows, written)
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
        return self.resolved.recipe.eval.judges[0]

    @property
    def draws(self) -> int:
        """Draws for each prompt."""
        return max(self.counts)

    @cached_property
    def needs(self) -> Mapping[str, Resolved]:
        """Field of the judge -> the recipe of the run that it needs."""
        return {key: need for key, need in self.resolved.needs.items() if key.startswith(f"{AT}.")}

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
        for need in self.needs.values():
            run_resolved(need, wait=True, screen=screen)
        if self.needs:
            open_judges(self.resolved, screen, below=AT)
        made_by = digest({key: need.fingerprint for key, need in self.needs.items()})
        return judge_replies(self.judge, resolved, run, replies, None, screen, scores_by=made_by)

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
