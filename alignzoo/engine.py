"""The optimisation loop.

A step is defined on the global batch: sum of losses over sum of weights, over all ranks. Micro-batches are cut by a
token budget and only decide how that sum is computed: any budget gives the same step up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from alignzoo.errors import RunFailed
from alignzoo.examples import Flat, Given, Supply, joined
from alignzoo.forest import plan
from alignzoo.metrics import Tally, describe
from alignzoo.objective import Objective
from alignzoo.recipe.schema import AdamW, Optimizer, RMSprop, Schedule, TrainConfig
from alignzoo.scoring import Scorer


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

    supply: Supply
    config: TrainConfig
    accelerator: Accelerator
    scorer: nn.Module
    optimizer: torch.optim.Optimizer
    steps: int
    seed: int

    def __post_init__(self) -> None:
        self.bare: Scorer = self.accelerator.unwrap_model(self.scorer)
        self.budget = self.config.tokens_per_batch
        self.terms = self.supply.objective.terms
        self.states = [term.initial_state() for _, term in self.terms]
        """Of each term, kept from step to step."""

    def step(self, step: int) -> tuple[dict[str, float], int]:
        """Take optimiser step `step` (from 0): its metrics, and the token slots that this rank computed.

        Raises RunFailed, before anything is changed, when a loss or the gradient is not finite.
        """
        trees = self.supply.trees
        rows = rows_of_step(step, len(trees), self.config, self.seed).tolist()
        sizes = [int(np.diff(trees.segments[trees.trees[[row, row + 1]]])[0]) for row in rows]
        mine = share(rows, sizes, self.accelerator.process_index, self.accelerator.num_processes)
        rate = self.config.optimizer.learning_rate * rate_factor(self.config.schedule, step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        states = self.states
        try:
            metrics, slots = self._gradients(step, rows, mine)
            norm = self._clip()
            if not math.isfinite(norm):
                raise RunFailed(f"step {step + 1}: the gradient is not finite ({norm}); rows {self._names(mine)}")
        except RunFailed:
            self.states = states
            raise
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.supply.live is not None:
            self._follow(self.supply.objective.sync(step + 1))
        return metrics | {"grad_norm": norm, "learning_rate": rate}, slots

    def _gradients(self, step: int, rows: list[int], mine: list[int]) -> tuple[dict[str, float], int]:
        """Gradients of the loss over this rank's rows; half the budget again when memory runs out."""
        trees = [self.supply.tree(row) for row in mine]
        states = self.states
        while True:
            self.states = states
            try:
                parts = [[mine[i] for i in part] for part in plan(trees, self.budget, self.bare.layout)]
                if self.supply.objective.scope == "batch":
                    return self._whole_batch(step, rows, parts)
                return self._micro_batches(step, rows, parts)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _out_of_memory(error) or self.budget <= max(tree.slots for tree in trees):
                    raise
                self.budget //= 2
                self.optimizer.zero_grad(set_to_none=True)

    def _micro_batches(self, step: int, rows: list[int], parts: list[list[int]]) -> tuple[dict[str, float], int]:
        """Each example's loss is its own affair: one forward and one backward a micro-batch."""
        blank = self.supply.blank(rows)  # weights are known without a forward
        totals = [
            sum(float(term.weight(given.example).double().sum()) for given in self.supply.examples(blank, term))
            for _, term in self.terms
        ]
        tally, slots = Tally(self.accelerator), 0
        for part, last in zip(parts, [False] * (len(parts) - 1) + [True], strict=True):
            with self._synced(last):
                flat, used = self.supply.score(self.scorer, self.bare.layout, part)
                loss = self._loss(step, flat, totals, tally)
                # Ranks' gradients are averaged when they are synchronised; the step is defined on their sum.
                self.accelerator.backward(loss * self.accelerator.num_processes)
            tally.add(describe(self.supply, flat))
            slots += used
        return tally.means(), slots

    def _whole_batch(self, step: int, rows: list[int], parts: list[list[int]]) -> tuple[dict[str, float], int]:
        """Examples depend on each other: score all without a graph, take the loss's gradient with respect to every
        score of the global batch, and replay the micro-batches with these as coefficients (gradient caching)."""
        with torch.no_grad():
            mine = joined([self.supply.score(self.scorer, self.bare.layout, part)[0] for part in parts])
        flat = self._gathered(mine).in_order(rows)
        self.supply.with_reference(flat, self.accelerator.device)
        leaves = {name: flat.values[name] for name in self.supply.with_gradient if name in flat.values}
        flat.values |= {name: leaf.detach().requires_grad_() for name, leaf in leaves.items()}
        given = [list(self.supply.examples(flat, term, self.states[n], step)) for n, (_, term) in enumerate(self.terms)]
        with torch.no_grad():
            self.states = [
                term.next_state(batch[0].example) if self.states[n] else {}
                for n, ((_, term), batch) in enumerate(zip(self.terms, given, strict=True))
            ]
        tally, slots = Tally(), 0
        with torch.enable_grad():
            self._loss(step, flat, None, tally).backward()
        tally.add(describe(self.supply, flat))
        coefficients = Flat(flat.rows, flat.counts, flat.lengths, {
            name: _gradient(flat.values[name])
            for name in leaves
        })  # fmt: skip
        for part, last in zip(parts, [False] * (len(parts) - 1) + [True], strict=True):
            with self._synced(last):
                again, used = self.supply.score(self.scorer, self.bare.layout, part)
                wanted = coefficients.in_order(part)
                loss = sum((again.values[name] * value).sum() for name, value in wanted.values.items())
                self.accelerator.backward(loss * self.accelerator.num_processes)
            slots += used
        return tally.means(), slots

    def _loss(self, step: int, flat: Flat, totals: list[float] | None, tally: Tally) -> Tensor:
        """The part of the step's loss that these rows are: the sum over terms of weight * sum(loss) / sum(weight)."""
        whole: Tensor | None = None
        for n, (weight, term) in enumerate(self.terms):
            batches = list(self.supply.examples(flat, term, self.states[n], step))
            losses = []
            for given in batches:
                found = term.loss(given.example)
                self._check(step, term, found, given, flat)
                losses.append(found.sum())
            total = totals[n] if totals else sum(float(term.weight(given.example).sum()) for given in batches)
            loss = torch.stack(losses).sum() / total
            whole = weight * loss if whole is None else whole + weight * loss
            if len(self.terms) > 1:
                tally.add_total(f"loss_{term.name}", float(loss.detach()))
        assert whole is not None
        tally.add_total("loss", float(whole.detach()))
        return whole

    def _synced(self, last: bool) -> AbstractContextManager[None]:
        return nullcontext() if last else self.accelerator.no_sync(self.scorer)

    def _gathered(self, mine: Flat) -> Flat:
        """The whole global batch's scores, on every rank."""
        if self.accelerator.num_processes == 1:
            return mine
        values = {name: value.cpu() for name, value in mine.values.items()}
        everyone = joined(gather_object([Flat(mine.rows, mine.counts, mine.lengths, values)]))
        everyone.values = {name: value.to(self.accelerator.device) for name, value in everyone.values.items()}
        return everyone

    @torch.no_grad()
    def _follow(self, share: float) -> None:
        """Move a moving reference towards the policy."""
        if share and self.supply.live is not None:
            for ours, policy in zip(self.supply.live.parameters(), self.bare.parameters(), strict=True):
                ours.lerp_(policy.detach(), share)

    def _check(self, step: int, term: Objective, losses: Tensor, given: Given, flat: Flat) -> None:
        name, examples = term.name, len(given.owners)
        if losses.shape != (examples,):
            raise RunFailed(
                f"the loss of {name} has shape {tuple(losses.shape)}; expected one loss an example, ({examples},)"
            )
        if not bool(losses.isfinite().all()):
            bad = [flat.rows[given.owners[i]] for i in (~losses.isfinite()).nonzero()[:, 0].tolist()]
            raise RunFailed(f"step {step + 1}: the loss of {name} is not finite for rows {self._names(bad)}")

    def _names(self, rows: Sequence[int], most: int = 8) -> str:
        names = ", ".join(self.supply.trees.ids[row] for row in rows[:most])
        return names + (f" and {len(rows) - most} more" if len(rows) > most else "")

    def _clip(self) -> float:
        parameters = [parameter for parameter in self.scorer.parameters() if parameter.grad is not None]
        return float(self.accelerator.clip_grad_norm_(parameters, self.config.max_grad_norm or math.inf))


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def _out_of_memory(error: BaseException) -> bool:
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)
