"""Learning-rate schedules and the order of rows in each epoch."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from alignzoo.recipe.schema import Schedule, TrainConfig


def rate_factor(schedule: Schedule, step: int, total: int) -> float:
    """Return the factor of the learning rate at optimizer step `step` (from 0) of `total`.

    Warm-up is (step + 1) / (warmup + 1), as in the code of Rafailov et al. 2023, so that the first step has an effect.
    After it the factor is constant, or falls linearly or along half a cosine to zero, one step after the last.
    """
    warmup = schedule.warmup(total)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule.name == "constant":
        return 1.0
    done = (step - warmup) / max(1, total - warmup)
    return 1 - done if schedule.name == "linear" else 0.5 * (1 + math.cos(math.pi * done))


def total_steps(config: TrainConfig, rows: int) -> int:
    """Return the optimizer steps of a run. The last partial batch of an epoch is dropped."""
    return config.steps(rows)


def rows_of_step(step: int, rows: int, config: TrainConfig, seed: int) -> np.ndarray:
    """Return the row indices of a global batch, a pure function of the step.

    Resuming therefore needs no state.
    """
    per_epoch = rows // config.batch_size
    epoch, place = divmod(step, per_epoch)
    span = slice(place * config.batch_size, (place + 1) * config.batch_size)
    return _order(rows, seed, epoch)[span].astype(np.int64) if config.shuffle else np.arange(rows)[span]


@lru_cache(maxsize=1)
def _order(rows: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the rows in an epoch, drawn once per epoch, at four bytes per row."""
    return np.random.default_rng([seed, epoch]).permutation(rows).astype(np.uint32)
