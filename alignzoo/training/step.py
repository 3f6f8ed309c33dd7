"""The optimization loop.

A step is defined on the global batch: sum of losses over sum of weights, over all ranks. Micro-batches are cut by a
token budget and only decide how that sum is computed: any budget gives the same step up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from alignzoo.core.distributed.gather import full_tensor
from alignzoo.core.distributed.process_group import Ranks, share_rows
from alignzoo.core.errors import RunFailed, UserError, attribute_errors
from alignzoo.evaluation.aggregate import Tally
from alignzoo.evaluation.row_metrics import step_metrics
from alignzoo.interfaces.objective import Objective
from alignzoo.recipe.schema import TrainConfig
from alignzoo.scoring.batches import BatchBuilder, LossInput, ScoredBatch, concat_scored
from alignzoo.scoring.microbatches import fail_on_oom, halve_budget, plan_micro_batches
from alignzoo.scoring.scorer import Scorer
from alignzoo.training.schedule import rate_factor, rows_of_step
from alignzoo.training.spot_checks import Watch
from alignzoo.training.zero import Zero

T = TypeVar("T")


States = list[dict[str, float]]


ZERO_WEIGHT = "zero_weight"
"""1 in the metrics of a step whose weights are all 0. Such a step moves neither weights nor optimizer state."""


@dataclass
class Engine:
    """Everything that a step needs. Every rank has the same weights, and takes the same step.

    Raises UserError when a batch has fewer rows than there are ranks.
    """

    supply: BatchBuilder
    config: TrainConfig
    ranks: Ranks
    scorer: Scorer
    optimizer: torch.optim.Optimizer
    steps: int
    seed: int
    watch: Watch | None = None
    """Holds scores of some steps to the model's own forward."""

    def __post_init__(self) -> None:
        if self.config.batch_size < self.ranks.count:
            raise UserError(
                f"a batch of {self.config.batch_size} can't be shared by {self.ranks.count} processes",
                where="train.batch_size", expected=f"at least {self.ranks.count}",
            )  # fmt: skip
        self.zero = self.optimizer if isinstance(self.optimizer, Zero) else None
        self.budget = self.config.micro_batch_tokens
        self.terms = self.supply.objective.terms
        self.labels = _labels([term.name for _, term in self.terms])
        self.states: States = [term.initial_state() for _, term in self.terms]
        """Of each term, kept from step to step."""

    def step(self, step: int) -> tuple[dict[str, float], int]:
        """Take optimizer step `step` (from 0): its metrics, and the token slots that this rank computed.

        Raises RunFailed, before anything is changed, when a loss or the gradient is not finite.
        """
        trees = self.supply.trees
        rows = rows_of_step(step, len(trees), self.config, self.seed).tolist()
        sizes = [self.supply.tree(row).slots for row in rows]
        mine = share_rows(rows, sizes, self.ranks.index, self.ranks.count)
        rate = self.config.optimizer.learning_rate * rate_factor(self.config.schedule, step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        gradients = self._whole_batch if self.supply.objective.scope == "batch" else self._micro_batches
        if self.watch:
            self.watch.begin(step, rows, mine)
        try:
            metrics, slots, states = gradients(step, rows, mine)
            if self.watch:
                self.watch.finish(step)
            norm = self._take() if ZERO_WEIGHT not in metrics else 0.0
            if not math.isfinite(norm):
                raise RunFailed(f"step {step + 1}: the gradient is not finite ({norm}); rows {self.supply.names(rows)}")
        finally:
            self.optimizer.zero_grad(set_to_none=True)
        self.states = states
        self._follow(self.supply.objective.reference_update(step + 1))
        return metrics | {"grad_norm": norm, "learning_rate": rate}, slots

    def _micro_batches(self, step: int, rows: list[int], mine: list[int]) -> tuple[dict[str, float], int, States]:
        """Each example's loss is its own affair: one forward and one backward a micro-batch."""
        blank = self.supply.zeros(rows)  # weights are known without a forward
        totals = [_total(term, self.supply.examples(blank, term, step=step)) for _, term in self.terms]
        moves = any(totals)

        def learn(parts: list[list[int]]) -> tuple[Tally, int]:
            tally, slots = Tally(self.ranks), 0
            problem: RunFailed | None = None
            for part in parts:
                with torch.set_grad_enabled(moves):
                    flat, used = self._score(part or mine[:1])
                try:
                    loss = self._loss(step, flat, self.states, totals, tally) if part else _nothing(flat)
                except RunFailed as error:
                    if not self.ranks.in_step:
                        raise
                    problem, loss = error, _nothing(flat)  # the other ranks are in the middle of theirs
                if moves:  # a part without an example still has a backward, which may be one of all ranks
                    self._backward(loss if loss.requires_grad else _nothing(flat))
                if part:
                    tally.add(step_metrics(self.supply, flat))
                slots += used
            if problem is not None:
                raise problem
            return tally, slots

        tally, slots = self._in_parts(mine, learn)
        return tally.means() | ({} if moves else {ZERO_WEIGHT: 1.0}), slots, self.states

    def _whole_batch(self, step: int, rows: list[int], mine: list[int]) -> tuple[dict[str, float], int, States]:
        """Examples depend on each other: score all without a graph, take the loss's gradient with respect to every
        score of the global batch, and replay the micro-batches with these as coefficients (gradient caching).
        """

        def look(parts: list[list[int]]) -> ScoredBatch:
            with torch.no_grad():
                scored = [self._score(part or mine[:1])[0] for part in parts]
                return concat_scored([flat for flat, part in zip(scored, parts, strict=True) if part])

        flat = self._gathered(self._in_parts(mine, look)).in_order(rows)
        self.supply.with_reference(flat, self.ranks.device)
        leaves = {name: flat.values[name].requires_grad_() for name in self.supply.with_gradient if name in flat.values}
        with torch.no_grad():
            states = [self._next_state(n, flat, step) for n in range(len(self.terms))]
        tally = Tally()
        loss = self._loss(step, flat, states, None, tally)
        tally.add(step_metrics(self.supply, flat))
        if not loss.requires_grad:
            return tally.means() | {ZERO_WEIGHT: 1.0}, 0, states
        loss.backward()
        coefficients = ScoredBatch(
            rows, flat.counts, flat.lengths, {name: _gradient(leaf) for name, leaf in leaves.items()}
        )

        def replay(parts: list[list[int]]) -> int:
            slots = 0
            for part in parts:
                again, used = self._score(part or mine[:1])
                wanted = coefficients.in_order(part).values
                terms = [(again.values[name] * wanted[name]).sum() for name in wanted if part]
                self._backward(torch.stack(terms).sum() if terms else _nothing(again))
                slots += used
            return slots

        return tally.means(), self._in_parts(mine, replay), states

    def _in_parts(self, rows: list[int], work: Callable[[list[list[int]]], T]) -> T:
        """`work` on these rows, cut into micro-batches; once more at half the budget when memory runs out.

        Where a backward is one of all ranks they have equally many: empty ones follow where there are no more rows.
        """
        trees = [self.supply.tree(row) for row in rows]
        while True:
            parts = [[rows[i] for i in part] for part in plan_micro_batches(trees, self.budget, self.scorer.layout)]
            if self.ranks.in_step:
                parts += [[]] * (max(self.ranks.all_gather(len(parts))) - len(parts))
            try:
                return work(parts)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                self.budget = halve_budget(self.budget, trees, error)
            self.optimizer.zero_grad(set_to_none=True)

    @contextmanager
    def _forward_of_all(self) -> Iterator[None]:
        """With shards a forward, or a backward, is one of all ranks, which none can leave by itself."""
        if not self.ranks.in_step:
            yield
            return
        with self.ranks.connected(), fail_on_oom(self.budget):
            yield

    def _score(self, rows: list[int]) -> tuple[ScoredBatch, int]:
        with self._forward_of_all():
            flat, slots = self.supply.score(self.zero.engine if self.zero else self.scorer, rows)
        if self.watch:
            self.watch.transform(flat)
        return flat, slots

    def _backward(self, loss: Tensor) -> None:
        with self._forward_of_all():
            self.zero.backward(loss) if self.zero else loss.backward()

    def _loss(self, step: int, flat: ScoredBatch, states: States, totals: list[float] | None, tally: Tally) -> Tensor:
        """The part of the step's loss that these rows are: the sum over terms of weight * sum(loss) / sum(weight).

        `totals` are the sums of weights over the global batch; by default these rows are all of it.
        """
        parts = []
        for n, (weight, term) in enumerate(self.terms):
            batches = list(self.supply.examples(flat, term, states[n], step))
            losses = [flat.like.new_zeros(())]
            for given in batches:
                with self._blamed(step, term, "loss", flat.rows):
                    found = term.loss(given.example)
                self.supply.check_losses(f"step {step + 1}: ", term.name, found, given, flat)
                losses.append(found.sum())
            loss = torch.stack(losses).sum()
            if batches:  # a term that finds nothing to learn from in these rows adds nothing
                total = totals[n] if totals else _total(term, batches)
                loss = loss / total if total else torch.zeros_like(loss)
            parts.append(weight * loss)
            if len(self.terms) > 1:
                tally.add_total(f"loss_{self.labels[n]}", float(loss.detach()))
        full_tensor = torch.stack(parts).sum()
        tally.add_total("loss", float(full_tensor.detach()))
        return full_tensor

    def _next_state(self, n: int, flat: ScoredBatch, step: int) -> dict[str, float]:
        """A term's state after it has seen the global batch."""
        term, before = self.terms[n][1], self.states[n]
        if not before:
            return {}
        with self._blamed(step, term, "next_state", flat.rows):
            after = term.next_state(next(iter(self.supply.examples(flat, term, before, step))).example)
        return {key: float(value) for key, value in after.items()}

    def _gathered(self, mine: ScoredBatch) -> ScoredBatch:
        """The whole global batch's scores, on every rank."""
        if self.ranks.count == 1:
            return mine
        values = {name: value.cpu() for name, value in mine.values.items()}
        everyone = concat_scored(self.ranks.all_gather(ScoredBatch(mine.rows, mine.counts, mine.lengths, values)))
        everyone.values = {name: value.to(self.ranks.device) for name, value in everyone.values.items()}
        return everyone

    def _take(self) -> float:
        """Add up, clip and step: the gradient's norm before clipping. Nothing is changed where it is not finite."""
        if self.zero:
            return self.zero.reduce_and_step()
        self._sum_over_ranks()
        norm = self._clip()
        if math.isfinite(norm):
            self.optimizer.step()
        return norm

    def _sum_over_ranks(self) -> None:
        """Add up the ranks' gradients, once a step.

        The hooks of DistributedDataParallel would do it within the last backward. They expect every rank to use every
        parameter (an expert may get no token) and no rank to start a micro-batch again when its memory runs out.
        """
        if self.ranks.count == 1:
            return
        if self.ranks.sharded:  # each shard's sum was made within the backward
            self.ranks.all_gather()
            return
        parameters = [parameter for parameter in self.scorer.parameters() if parameter.requires_grad]
        used = self.ranks.all_gather([parameter.grad is not None for parameter in parameters])
        for parameter, by in zip(parameters, zip(*used, strict=True), strict=True):
            if any(by):
                mine = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = self.ranks.sum(mine)

    @torch.no_grad()
    def _follow(self, share_rows: float) -> None:
        """Move a moving reference towards the policy."""
        if share_rows and self.supply.live is not None:
            for ours, policy in zip(self.supply.live.parameters(), self.scorer.parameters(), strict=True):
                ours.lerp_(full_tensor(policy.detach()), share_rows)

    def _blamed(self, step: int, term: Objective, what: str, rows: Sequence[int]) -> AbstractContextManager[None]:
        return attribute_errors(
            f"step {step + 1}: the {what} of {term.name}", term, f", for rows {self.supply.names(rows)}"
        )

    def _clip(self) -> float:
        parameters = [parameter for parameter in self.scorer.parameters() if parameter.grad is not None]
        norm = full_tensor(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
        most, found = self.config.max_grad_norm or math.inf, float(norm)
        if found + 1e-6 > most:  # else it would multiply every gradient by one
            nn.utils.clip_grads_with_norm_(parameters, most, norm)
        return found


@torch.no_grad()
def _total(term: Objective, batches: Iterable[LossInput]) -> float:
    """The sum of a term's weights, in float64."""
    return sum(float(term.weight(given.example).double().sum()) for given in batches)


def _labels(names: Sequence[str]) -> list[str]:
    """Each name, with a number where it is there again: dpo, sft, dpo_2."""
    return [name if name not in names[:i] else f"{name}_{names[: i + 1].count(name)}" for i, name in enumerate(names)]


def _nothing(flat: ScoredBatch) -> Tensor:
    """A loss of zero, whose backward still goes through the whole model."""
    live = [value.sum() for value in flat.values.values() if value.requires_grad]
    return torch.stack(live).sum() * 0 if live else flat.like.new_zeros(())


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
