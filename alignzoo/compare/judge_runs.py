"""Judges of a comparison, and the runs that they need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from alignzoo.compare.spec import Comparison, make_judges
from alignzoo.compare.written import Written
from alignzoo.core.console import Screen
from alignzoo.core.digests import digest
from alignzoo.core.errors import Problem, UserError
from alignzoo.interfaces.component import Component
from alignzoo.interfaces.judge import Judge
from alignzoo.recipe.parse import COMMAND_LINE, Node, Origin
from alignzoo.recipe.resolved import Resolved
from alignzoo.training.needed_runs import open_judges
from alignzoo.training.run import run_resolved

AT = "eval.judges."
"""Where the judges stand in the recipe that resolves them, each with its number."""


@dataclass(frozen=True)
class JudgeRuns:
    """Judges, and the runs that they need.

    A run is what it would be for a judge of the first recipe: it inherits the overlays and overrides of the comparison.
    """

    resolved: Resolved
    """The first recipe of the comparison with the judges under `eval.judges`."""
    written: Written
    """What it was loaded from."""

    @classmethod
    def of(
        cls, judges: Sequence[Any], where: str, comparison: Comparison, classes: Sequence[type[Component]]
    ) -> JudgeRuns:
        """Resolve judges.

        Args:
            judges: Names, or mappings with `name` and the judge's fields.
            where: The comparison's key that names them, for error messages.
            comparison: The comparison.
            classes: Classes that its recipes may name.

        Raises:
            UserError: A judge or the recipe of its run has a mistake.
        """
        written = Written(comparison.recipes[0], comparison.overrides, comparison.overlays, judges=tuple(judges))
        try:
            resolved = written.resolve(classes)
        except UserError as error:
            raise type(error)([_moved(one, where) for one in error.problems]) from None
        return cls(resolved, written)

    @property
    def judges(self) -> Sequence[Judge]:
        """The judges."""
        return self.resolved.recipe.eval.judges

    @cached_property
    def needs(self) -> Mapping[str, Resolved]:
        """Key of a judge's field -> the recipe of the run that it needs."""
        return {key: need for key, need in self.resolved.needs.items() if key.startswith(AT)}

    def runs(self) -> Iterator[tuple[Resolved, Written]]:
        """Yield the runs that the judges need, with the way to each, the nearest first."""
        for key, need in self.needs.items():
            written = replace(self.written, needs=(key,))
            yield need, written
            yield from written.below(need)

    def make_runs(self, screen: Screen) -> None:
        """Make the runs that are missing, and give them to the judges."""
        for need in self.needs.values():
            run_resolved(need, wait=True, screen=screen)
        if self.needs:
            open_judges(self.resolved, screen, below=AT)

    @cached_property
    def made_by(self) -> Mapping[str, str]:
        """Name of a judge -> a digest of the runs that it needs."""
        found: dict[str, dict[str, str]] = {}
        for key, need in self.needs.items():
            number, _, field = key.removeprefix(AT).partition(".")
            found.setdefault(self.judges[int(number)].name, {})[field] = need.fingerprint
        return {name: digest(fingerprints) for name, fingerprints in found.items()}


def _moved(problem: Problem, where: str) -> Problem:
    """Return a problem with the comparison's key in place of a key that nobody wrote."""
    before, found, after = problem.what.partition(AT)
    if not found:
        return replace(problem, hint=problem.hint or f"a run that the comparison's {where} needs")
    return replace(problem, what=before + after.lstrip("0123456789").lstrip(".: "), where=where)


def judge_runs_of(comparison: Comparison, classes: Sequence[type[Component]] = ()) -> JudgeRuns | None:
    """Return a comparison's judges with the runs that they need, None where none needs one.

    Args:
        comparison: The comparison.
        classes: Classes that its recipes may name.

    Raises:
        UserError: A judge or the recipe of its run has a mistake.
    """
    if not any(judge.needs_runs for judge in make_judges(comparison.judges, Node({}, Origin(COMMAND_LINE)))):
        return None
    found = JudgeRuns.of(comparison.judges, "judges", comparison, classes)
    for judge in found.judges:
        judge.ready()
    return found if found.needs else None
