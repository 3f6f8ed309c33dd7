"""The optimisation loop.

A step is defined on the global batch: sum of losses over sum of weights, over all ranks. Micro-batches are cut by a
token budget and only decide how that sum is computed: any budget gives the same step up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from alignzoo.errors import RunFailed
from alignzoo.examples import as_example, branches_of, reference_sums, trained_tree
from alignzoo.forest import lay, plan
from alignzoo.metrics import Tally
from alignzoo.objective import Objective
from alignzoo.recipe.schema import AdamW, Optimizer, RMSprop, Schedule, TrainConfig
from alignzoo.reference import Reference
from alignzoo.scoring import Scorer, per_sequence
from alignzoo.tree import Tree, Trees


def make_optimizer(config: Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    """The recipe's optimiser over the parameters that are trained."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    options = config.model_dump(exclude={"name", "learning_rate"}) | {"lr": config.learning_rate}
    if isinstance(config, AdamW):
        return torch.optim.AdamW(parameters, **options)
    if isinstance(config, RMSprop):
        return torch.optim.RMSprop(parameters, **options)
    return torch.optim.SGD(parameters, **options)


def rate_factor(schedule: Schedule, step: int, total: int) -> float:
    """What the learning rate is multiplied by at optimiser step `step` (from 0) of `total`.

    Warm-up is the DPO authors' (step + 1) / (warmup + 1), so that the first step already moves; after it the rate is
    constant, or falls to zero along a line or half a cosine, reached one step after the last.
    """
    if step < schedule.warmup_steps:
        return (step + 1) / (schedule.warmup_steps + 1)
    if schedule.name == "constant":
        return 1.0
    done = (step - schedule.warmup_steps) / max(1, total - schedule.warmup_steps)
    return 1 - done if schedule.name == "linear" else 0.5 * (1 + math.cos(math.pi * done))


def total_steps(config: TrainConfig, rows: int) -> int:
    """Optimiser steps of a run; the last partial batch of an epoch is dropped, as the DPO authors' code does."""
    steps = max(1, int(config.epochs * (rows // config.batch_size)))
    return min(steps, config.max_steps) if config.max_steps else steps


def rows_of_step(step: int, rows: int, config: TrainConfig, seed: int) -> np.ndarray:
    """The row indices of a global batch: a pure function of the step, so that resuming needs no state."""
    per_epoch = rows // config.batch_size
    epoch, place = divmod(step, per_epoch)
    order = np.random.default_rng([seed, epoch]).permutation(rows) if config.shuffle else np.arange(rows)
    return order[place * config.batch_size : (place + 1) * config.batch_size]


def share(rows: Sequence[int], sizes: Sequence[int], rank: int, ranks: int) -> list[int]:
    """This rank's part of the rows, so that all ranks get about the same number of tokens (longest to the emptiest)."""
    if ranks == 1:
        return list(rows)
    loads = [0] * ranks
    parts: list[list[int]] = [[] for _ in range(ranks)]
    for i in sorted(range(len(rows)), key=lambda i: (-sizes[i], i)):
        least = min(range(ranks), key=lambda r: (loads[r], r))
        parts[least].append(rows[i])
        loads[least] += sizes[i]
    return parts[rank]


@dataclass
class Engine:
    """Everything that a step needs. `scorer` is the prepared one, `accelerator.unwrap_model(scorer)` our own."""

    objective: Objective
    config: TrainConfig
    accelerator: Accelerator
    scorer: nn.Module
    optimizer: torch.optim.Optimizer
    trees: Trees
    reference: Reference | None
    steps: int
    seed: int

    def __post_init__(self) -> None:
        self.bare: Scorer = self.accelerator.unwrap_model(self.scorer)
        self.budget = self.config.tokens_per_batch
        self.branches = branches_of(self.objective)

    def step(self, step: int) -> tuple[dict[str, float], int]:
        """Take optimiser step `step` (from 0): its metrics, and the token slots that this rank computed.

        Raises RunFailed, before anything is changed, when a loss or the gradient is not finite.
        """
        rows = rows_of_step(step, len(self.trees), self.config, self.seed)
        sizes = [int(np.diff(self.trees.segments[self.trees.trees[[row, row + 1]]])[0]) for row in rows]
        mine = share(rows.tolist(), sizes, self.accelerator.process_index, self.accelerator.num_processes)
        rate = self.config.optimizer.learning_rate * rate_factor(self.config.schedule, step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        tally, slots = self._gradients(step, mine)
        norm = self._scale_and_clip(tally.weight)
        if not math.isfinite(norm):
            raise RunFailed(f"step {step + 1}: the gradient is not finite ({norm}); rows {self._names(mine)}")
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return tally.means() | {"grad_norm": norm, "learning_rate": rate}, slots

    def _gradients(self, step: int, rows: list[int]) -> tuple[Tally, int]:
        """Gradients of the sum of losses over this rank's rows; half the budget again when memory runs out."""
        trees = [trained_tree(self.trees, row, self.branches) for row in rows]
        while True:
            try:
                return self._micro_batches(step, rows, trees)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _out_of_memory(error) or self.budget <= max(tree.slots for tree in trees):
                    raise
                self.budget //= 2
                self.optimizer.zero_grad(set_to_none=True)

    def _micro_batches(self, step: int, rows: list[int], trees: list[Tree]) -> tuple[Tally, int]:
        parts = plan(trees, self.budget, self.bare.layout)
        tally, slots = Tally(self.accelerator), 0
        for n, part in enumerate(parts):
            last = n == len(parts) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.scorer):
                forest = lay([trees[i] for i in part], self.bare.layout).to(self.accelerator.device)
                length = forest.offsets.diff().float()
                log_prob = per_sequence(self.scorer(forest), forest)
                ref = reference_sums(self.reference, [rows[i] for i in part], self.branches)
                example = as_example(self.objective, log_prob, length, None if ref is None else ref.to(log_prob))
                losses = self.objective.loss(example)
                self._check(step, losses, len(part), [rows[i] for i in part])
                # Ranks' gradients are averaged when they are synchronised; the step is defined on their sum.
                self.accelerator.backward(losses.sum() * self.accelerator.num_processes)
            tally.add(self.objective, example, losses)
            slots += forest.slots
        return tally.over_ranks(), slots

    def _check(self, step: int, losses: Tensor, examples: int, rows: list[int]) -> None:
        name = type(self.objective).__name__
        if losses.shape != (examples,):
            raise RunFailed(
                f"{name}.loss returned shape {tuple(losses.shape)}; expected one loss an example, ({examples},)"
            )
        if not bool(losses.isfinite().all()):
            bad = [row for row, finite in zip(rows, losses.isfinite().tolist(), strict=True) if not finite]
            raise RunFailed(f"step {step + 1}: {name}'s loss is not finite for rows {self._names(bad)}")

    def _names(self, rows: Sequence[int], most: int = 8) -> str:
        names = ", ".join(self.trees.ids[row] for row in rows[:most])
        return names + (f" and {len(rows) - most} more" if len(rows) > most else "")

    def _scale_and_clip(self, weight: float) -> float:
        parameters = [parameter for parameter in self.scorer.parameters() if parameter.grad is not None]
        for parameter in parameters:
            parameter.grad.div_(weight)  # type: ignore[union-attr]
        return float(self.accelerator.clip_grad_norm_(parameters, self.config.max_grad_norm or math.inf))


def _out_of_memory(error: BaseException) -> bool:
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)
