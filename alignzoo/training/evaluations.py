"""Evaluations of a run: when one is due, and its figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alignzoo.core.console import Screen
from alignzoo.core.distributed.process_group import Ranks
from alignzoo.evaluation.evaluate import VALIDATION, evaluate
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.training.selection import Selection, ValidationRows
from alignzoo.training.step import Engine


def is_due(step: int, every: int | None, steps: int) -> bool:
    """Return True if a run of `steps` is evaluated after `step`.

    That is at both ends, and every so many steps.
    """
    return step in (0, steps) or bool(every and step % every == 0)


@dataclass
class Evaluations:
    """Evaluates the policy on the held-out rows and on each evaluation set."""

    engine: Engine
    rows: Mapping[str, BatchBuilder]
    """The held-out rows under an empty name, and each evaluation set."""
    validation: ValidationRows
    selection: Selection
    ranks: Ranks
    screen: Screen

    def figures(self, step: int, records: list[dict[str, Any]]) -> dict[str, float]:
        """Return name -> figure after a step; {} without rows.

        Those of an evaluation set are called `SET/NAME`. Of the validation half only the figures that checkpoints are
        chosen by are there. `records` receives a record of each held-out row, after the start.
        """
        hidden = self.screen.without_bars()  # a second bar would overwrite that of training
        engine, found = self.engine, dict[str, float]()
        for name, rows in self.rows.items():
            if rows.groups or not rows.trees.answered:  # the data has nothing to score
                continue
            own = evaluate(
                engine.scorer, rows, 2 * engine.passes.budget, hidden, engine.states, at_start=step == 0,
                ranks=self.ranks, half=self.validation.get(name),
                records=None if name or step == 0 else records,
            )  # fmt: skip
            found |= {f"{name}/{key}" if name else key: value for key, value in self._wanted(name, own).items()}
        return found | self._wanted("", engine.batches.evaluate(self.validation.get("")))

    def _wanted(self, part: str, own: Mapping[str, float]) -> dict[str, float]:
        chosen = {f"{VALIDATION}{figure}" for figure in self.selection.of_part(part)}
        return {key: value for key, value in own.items() if not key.startswith(VALIDATION) or key in chosen}
