"""Spot checks of training steps: what a step's own forward gave for a few rows, against the oracle before it moves."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from alignzoo.core.distributed.process_group import Ranks
from alignzoo.core.errors import RunFailed
from alignzoo.scoring.batches import PER_SEQUENCE, BatchBuilder, ScoredBatch
from alignzoo.scoring.exactness import Check, SpotCheck, must_stop

SHARE = 0.01
"""Of a run's work, the most that checks take."""
SLOWER = 8
"""Times that a token slot costs more one sequence at a time than in a micro-batch."""


def interval(sizes: NDArray[np.int64], batch: int) -> int:
    """Steps between two checks: by token slots, which are the same in every run, and not by a clock.

    A step costs three forwards of its rows (a backward is two). A check costs one of two rows, `SLOWER` times a slot,
    and at most twice their slots for prompts that their branches share.
    """
    step = 3 * batch * float(sizes.mean())
    check = SLOWER * 2 * 2 * float(sizes.max())
    return max(1, int(np.ceil(check / (SHARE * step))))


@dataclass
class Watch:
    """Which rows of which steps are checked, and what came of it.

    Steps are checked every `interval`, and when a batch holds a row longer than all before. Both depend on the data
    alone, so a run that goes on checks what it would have. Raises RunFailed when scores differ too much.
    """

    spot: SpotCheck
    supply: BatchBuilder
    rows_of: Callable[[int], NDArray[np.int64]]
    ranks: Ranks
    every: int
    history: list[bool] = field(default_factory=list)
    """Of each check so far, whether it was over its limit."""
    last: Check | None = None
    """Of the step just taken, if it was checked."""
    seconds: float = 0.0
    """That the last check took."""

    def __post_init__(self) -> None:
        self._longest, self._until = 0, 0
        self._wanted: set[int] = set()
        self._kept: dict[int, ScoredBatch] = {}
        self._due = False

    def begin(self, step: int, rows: Sequence[int], mine: Sequence[int]) -> None:
        """Choose what is looked at in this step. `mine` are this process's of all `rows`."""
        sizes = self.supply.trees.sizes
        for before in range(self._until, step):
            self._longest = max(self._longest, int(sizes[self.rows_of(before)].max()))
        longest = int(sizes[list(rows)].max())
        self._due = step % self.every == 0 or longest > self._longest
        self._longest, self._until = max(self._longest, longest), step + 1
        self._wanted = {max(mine, key=lambda row: (sizes[row], -row)), mine[0]} if self._due else set()
        self._kept, self.last = {}, None

    def transform(self, flat: ScoredBatch) -> None:
        """Keep what the forward gave for the rows that are looked at."""
        for row in self._wanted.intersection(flat.rows) - self._kept.keys():
            one = flat.in_order([row])
            one.values = {name: value.detach() for name, value in one.values.items()}
            self._kept[row] = one

    def finish(self, step: int) -> None:
        """Compare, before the step changes the weights."""
        if not self._due:
            return
        began = time.perf_counter()
        rows = sorted(self._kept)
        values = [value for row in rows for value in _by_sequence(self._kept[row])]
        mine = self.spot.compare([self.supply.tree(row) for row in rows], values)
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


def _by_sequence(flat: ScoredBatch) -> Sequence[Tensor]:
    name = "scalar" if "scalar" in flat.values else "log_prob"
    return flat.values[name].split(1 if name in PER_SEQUENCE else flat.lengths.tolist())
