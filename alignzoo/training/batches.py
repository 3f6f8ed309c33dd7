"""The rows of each step: of the data set, or of rollouts (`alignzoo.rollouts.Rollouts`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from alignzoo.recipe.schema import TrainConfig
from alignzoo.training.batch_loss import States
from alignzoo.training.schedule import rows_of_step


class BatchSource(Protocol):
    """Where the rows of a step are from."""

    line: dict[str, Any] | None
    """Figures to record before those of the step."""
    seconds: dict[str, float]
    """Time that making the rows took, by its parts."""

    def begin(self, step: int, states: States) -> tuple[list[int], States]:
        """Return the rows of a step, from 0, and the states that its loss gets.

        A second call returns the same.
        """

    def evaluate(self, half: NDArray[np.bool_] | None = None) -> dict[str, float]:
        """Return figures of held-out prompts beside those of the held-out rows.

        `half` marks the held-out rows of the validation half, whose figures are added under names of their own.
        """

    def words(self, seconds: float) -> list[str]:
        """Return figures for the progress bar, after a step that took so long."""


@dataclass
class DataBatches:
    """Batches of a data set in a seeded order."""

    rows: int
    config: TrainConfig
    seed: int
    line: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def begin(self, step: int, states: States) -> tuple[list[int], States]:
        """Return the rows of a step."""
        return rows_of_step(step, self.rows, self.config, self.seed).tolist(), states

    def evaluate(self, half: NDArray[np.bool_] | None = None) -> dict[str, float]:
        """Return nothing: the held-out rows are all there is."""
        return {}

    def words(self, seconds: float) -> list[str]:
        """Return nothing."""
        return []
