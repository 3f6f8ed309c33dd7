"""Optimizers, learning-rate schedules and the order of rows in each epoch."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import nn

from alignzoo.core.distributed.gather import reshard
from alignzoo.recipe.schema import AdamW, Optimizer, Schedule, TrainConfig
from alignzoo.training.master_weights import with_masters


def make_optimizer(config: Optimizer, model: nn.Module, masters: bool = True) -> torch.optim.Optimizer:
    """Return the recipe's optimizer over the trainable parameters.

    With `masters` it is over float32 copies of those that are narrower.
    """
    reshard(model)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    options = config.model_dump(exclude={"name", "learning_rate"}) | {"lr": config.learning_rate}
    fused = {"fused": True} if isinstance(config, AdamW) else {}
    kind = {"adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop, "sgd": torch.optim.SGD}[config.name]
    return with_masters(parameters, lambda tensors: kind(tensors, **options, **fused), masters)


def rate_factor(schedule: Schedule, step: int, total: int) -> float:
    """Return the factor of the learning rate at optimizer step `step` (from 0) of `total`.

    Warm-up is (step + 1) / (warmup + 1), as in the code of Rafailov et al. 2023, so that the first step has an effect.
    After it the factor is constant, or falls linearly or along half a cosine to zero, one step after the last.
    """
    if step < schedule.warmup_steps:
        return (step + 1) / (schedule.warmup_steps + 1)
    if schedule.name == "constant":
        return 1.0
    done = (step - schedule.warmup_steps) / max(1, total - schedule.warmup_steps)
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
