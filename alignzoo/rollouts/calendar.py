"""Calendar of an online run: a step's rollout, epoch and prompts, as a pure function."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from alignzoo.recipe.rollout import RolloutConfig
from alignzoo.recipe.schema import TrainConfig


@dataclass(frozen=True, slots=True)
class Turn:
    """The place of a step."""

    rollout: int
    epoch: int
    """Passes over the rollout before this one."""
    update: int
    """Updates from the rollout before this one."""


@dataclass(frozen=True)
class Calendar:
    """Steps and rollouts of a run over `rows` prompts. A step is one update."""

    train: TrainConfig
    rollout: RolloutConfig
    rows: int
    """Prompts that can be drawn from."""
    seed: int

    @property
    def prompts(self) -> int:
        """Prompts of a rollout."""
        if self.rollout.prompts == "all":
            batches = self.rows // self.train.batch_size
            return self.train.batch_size * max(1, min(batches, self.train.max_steps or batches))
        return self.rollout.prompts or self.train.batch_size

    @property
    def updates(self) -> int:
        """Updates from one rollout."""
        return self.rollout.epochs * (self.prompts // self.train.batch_size)

    @property
    def steps(self) -> int:
        """Number of updates of the run.

        `train.epochs` counts passes over the prompts. The last partial rollout is dropped.
        """
        rollouts = max(1, int(Fraction(repr(self.train.epochs)) * (self.rows // self.prompts)))
        steps = rollouts * self.updates
        return min(steps, self.train.max_steps) if self.train.max_steps else steps

    def turn(self, step: int) -> Turn:
        """Return the place of a step, from 0."""
        rollout, update = divmod(step, self.updates)
        return Turn(rollout, update // (self.prompts // self.train.batch_size), update)

    def prompts_of(self, rollout: int) -> NDArray[np.int64]:
        """Return the indices (prompts,) of a rollout's prompts, each once in a pass over the data."""
        epoch, place = divmod(rollout, self.rows // self.prompts)
        span = slice(place * self.prompts, (place + 1) * self.prompts)
        return _order(self.rows, self.seed, epoch, self.train.shuffle)[span]

    def replacements(self, rollout: int, attempt: int, used: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """Return at most `count` unused prompts for a later attempt at a rollout.

        `attempt` is 1 or more, and `used` has the prompts of the earlier ones.
        """
        order = np.random.default_rng([self.seed, rollout, attempt, 1]).permutation(self.rows)
        return order[~np.isin(order, used)][:count]

    def minibatch(self, step: int) -> NDArray[np.int64]:
        """Return the places (batch_size,) in the rollout of the prompts that a step trains on."""
        turn, size = self.turn(step), self.train.batch_size
        place = turn.update % (self.prompts // size)
        order = np.arange(self.prompts)
        if turn.epoch and self.train.shuffle:
            order = np.random.default_rng([self.seed, turn.rollout, turn.epoch]).permutation(self.prompts)
        return order[place * size : (place + 1) * size]


@lru_cache(maxsize=1)
def _order(rows: int, seed: int, epoch: int, shuffle: bool) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(rows) if shuffle else np.arange(rows)
