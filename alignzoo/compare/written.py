"""Recipes as they were written: plain data that leads to the same run in another process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from json import dumps
from pathlib import Path
from typing import Any

from alignzoo.interfaces.component import Component
from alignzoo.recipe.load import load_recipe
from alignzoo.recipe.resolved import Resolved


@dataclass(frozen=True)
class Written:
    """A recipe, what is merged on top of it, and the way from there to a run that it needs."""

    recipe: str
    overrides: Sequence[str] = ()
    overlays: Sequence[str] = ()
    needs: Sequence[str] = ()
    """Keys of needed runs, each in the recipe of the one before: `("model.from",)` is the run's start."""
    judges: Sequence[Any] = ()
    """Judges in place of the recipe's own. It is no run then, and their runs may need the recipe's."""

    def resolve(self, classes: Sequence[type[Component]] = ()) -> Resolved:
        """Load the recipe, and return it or the needed run that `needs` leads to.

        Args:
            classes: Classes that the recipe may name and that no plugin registers.

        Raises:
            UserError: The recipe has a problem.
        """
        found = load_recipe(self.recipe, list(self.overrides), list(self.overlays), classes)
        if self.judges:
            words = [*self.overrides, f"eval.judges={dumps(list(self.judges))}"]
            found = load_recipe(replace(found, path=Path("judges")), words, list(self.overlays), classes)
        for key in self.needs:
            found = found.needs[key]
        return found

    def below(self, resolved: Resolved) -> Iterator[tuple[Resolved, Written]]:
        """Yield the runs that a run needs, with the way to each, the nearest first.

        Args:
            resolved: What `resolve` returns.
        """
        for key, need in resolved.needs.items():
            written = replace(self, needs=(*self.needs, key))
            yield need, written
            yield from written.below(need)
