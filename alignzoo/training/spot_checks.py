"""Spot checks of training steps: a few rows' scores against the model's own forward.

They come before the weights change.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from alignzoo.core.distributed.process_group import Ranks
from alignzoo.core.errors import RunFailed
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.scoring.exactness import Check, SpotCheck, must_stop
from alignzoo.scoring.scored_batch import PER_SEQUENCE, ScoredBatch

SHARE = 0.01
"""Maximum fraction of a run's work that checks take."""
SLOWER = 8
"""Cost of a token slot scored one sequence at a time, relative to one in a micro-batch."""


def interval(sizes: NDArray[np.int64], batch: int) -> int:
    """Return the number of steps between two checks, from counts of token slots.

    These are the same in every run. A step costs three forwards of its rows (a backward is two). A check costs one of
    two rows, `SLOWER` times a slot, and at most twice their slots for prompts that their branches share.
    """
    step = 3 * batch * float(sizes.mean())
    check = SLOWER * 2 * 2 * float(sizes.max())
    return max(1, int(np.ceil(check / (SHARE * step))))


@dataclass
class Watch:
    """Chooses the rows and steps that are checked, and keeps the outcomes.

    A step is checked every `interval` steps, and if its batch has a row longer than all before. Both depend on the data
    alone, so a resumed run checks the same steps.
    """

    spot: SpotCheck
    builder: BatchBuilder
    rows_of: Callable[[int], NDArray[np.int64]] | None
    """The rows of a step; None if they are not known before it, so that their lengths choose no step."""
    ranks: Ranks
    every: int
    history: list[bool] = field(default_factory=list)
    """For each check so far, True if it was over its limit."""
    last: Check | None = None
    """The check of the last step, None if it was not checked."""
    seconds: float = 0.0
    """Duration of the last check."""

    def __post_init__(self) -> None:
        self._longest, self._until = 0, 0
        self._wanted: set[int] = set()
        self._kept: dict[int, ScoredBatch] = {}
        self._due = False

    def begin(self, step: int, rows: Sequence[int], mine: Sequence[int]) -> None:
        """Choose the rows to check, if a check is due: the longest and the first of `mine`.

        `mine` is this process's share of `rows`.
        """
        sizes = self.builder.trees.sizes
        longest = int(sizes[list(rows)].max())
        if self.rows_of is None:
            self._longest = longest
        else:
            for before in range(self._until, step):
                self._longest = max(self._longest, int(sizes[self.rows_of(before)].max()))
        self._due = step % self.every == 0 or longest > self._longest
        self._longest, self._until = max(self._longest, longest), step + 1
        self._wanted = {max(mine, key=lambda row: (sizes[row], -row)), mine[0]} if self._due and mine else set()
        self._kept, self.last = {}, None

    def observe(self, batch: ScoredBatch) -> None:
        """Keep the scores of the rows to check."""
        for row in self._wanted.intersection(batch.rows) - self._kept.keys():
            one = batch.in_order([row])
            one.values = {name: value.detach() for name, value in one.values.items()}
            self._kept[row] = one

    def finish(self, step: int) -> None:
        """Compare the kept scores with the model's own forward.

        This comes before the step changes the weights.

        Raises:
            RunFailed: Scores differ by more than the limit.
        """
        if not self._due:
            return
        began = time.perf_counter()
        rows = sorted(self._kept)
        values = [value for row in rows for value in _by_sequence(self._kept[row])]
        mine = self.spot.compare([self.builder.tree(row) for row in rows], values)
        found = self.ranks.all_gather(mine)
        worst = max(found, key=lambda check: check.difference / check.limit)
        self.last = Check(
            worst.difference, worst.limit, sum(one.sequences for one in found), sum(one.tokens for one in found),
            worst.worst,
        )  # fmt: skip
        self.seconds = time.perf_counter() - began
        self.history.append(self.last.over)
        if must_stop(self.history, self.spot.strict):
            raise RunFailed(f"step {step + 1}: {self.last.problem}")


def _by_sequence(batch: ScoredBatch) -> Sequence[Tensor]:
    name = "scalar" if "scalar" in batch.values else "log_prob"
    return batch.values[name].split(1 if name in PER_SEQUENCE else batch.lengths.tolist())
