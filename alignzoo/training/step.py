"""One optimizer step.

A step is defined on the global batch: sum of losses over sum of weights, over all processes. Micro-batches are cut by a
token budget and only decide how that sum is computed: any budget gives the same step up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from alignzoo.core.distributed.process_group import Ranks, share_rows
from alignzoo.core.errors import RunFailed, UserError
from alignzoo.recipe.schema import TrainConfig
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.scoring.scored_batch import ScoredBatch
from alignzoo.scoring.scorer import Scorer
from alignzoo.training.batch_loss import BatchLoss
from alignzoo.training.batches import BatchSource, DataBatches
from alignzoo.training.gradients import gradient_by_batch, gradient_by_row
from alignzoo.training.learner import Learner
from alignzoo.training.moving_reference import MovingReference
from alignzoo.training.parallelism import choose_parallelism
from alignzoo.training.passes import Passes
from alignzoo.training.schedule import rate_factor
from alignzoo.training.spot_checks import Watch

ZERO_WEIGHT = "zero_weight"
"""1 in the metrics of a step without rows, or whose weights are all 0. It moves neither weights nor optimizer state."""


@dataclass
class Engine:
    """Takes optimizer steps. Every process has the same weights, and takes the same step.

    Raises:
        UserError: A batch has fewer rows than there are processes.
    """

    builder: BatchBuilder
    config: TrainConfig
    ranks: Ranks
    scorer: Scorer
    optimizer: torch.optim.Optimizer
    steps: int
    """Optimizer steps of the whole run, for the learning-rate schedule."""
    seed: int
    source: BatchSource | None = None
    """Where the rows of a step are from; by default the builder's trees in a seeded order."""
    watch: Watch | None = None
    """Compares scores of some steps with the model's own forward."""
    critic: Learner | None = None
    """The critic, whose values the builder computes."""

    def __post_init__(self) -> None:
        if self.config.batch_size < self.ranks.count:
            raise UserError(
                f"a batch of {self.config.batch_size} can't be shared by {self.ranks.count} processes",
                where="train.batch_size", expected=f"at least {self.ranks.count}",
            )  # fmt: skip
        config = self.config
        policy = Learner(self.scorer, self.optimizer, config.optimizer.learning_rate, config.max_grad_norm)
        self.learners = [policy, *([self.critic] if self.critic else [])]
        """The policy, and the critic if there is one."""
        self.parallelism = choose_parallelism(self.learners, self.ranks)
        budget = self.config.micro_batch_tokens
        self.passes = Passes(self.builder, self.parallelism, self.ranks, budget, self._observe)
        self.loss = BatchLoss(self.builder)
        self.states = self.loss.initial_states()
        self.batches = self.source or DataBatches(len(self.builder.trees), self.config, self.seed)
        live = self.builder.live if self.builder.objective.reference == "moving" else None
        corrected = self.builder.objective.reference_correction(1) != 0
        self.moving = MovingReference(live.model, self.scorer.model, self.optimizer, corrected) if live else None

    def step(self, step: int) -> tuple[dict[str, float], int]:
        """Take an optimizer step.

        Args:
            step: The number of the step, from 0.

        Returns:
            Its metrics, and the token slots that this process computed.

        Raises:
            RunFailed: A loss or the gradient is not finite; nothing has changed.
        """
        rows, states = self.batches.begin(step, self.states)
        rate = self._set_learning_rate(step)
        if not rows:
            self.states = states  # what was drawn for the steps after it may have changed them
            return {ZERO_WEIGHT: 1.0, "grad_norm": 0.0, "learning_rate": rate}, 0
        slots = [self.builder.tree(row).slots for row in rows]
        mine = share_rows(rows, slots, self.ranks.index, self.ranks.count)
        compute = gradient_by_batch if self.builder.objective.scope == "batch" else gradient_by_row
        if self.watch:
            self.watch.begin(step, rows, mine)
        try:
            gradient = compute(self.passes, self.loss, step, rows, mine, states)
            if self.watch:
                self.watch.finish(step)
            norms = [0.0] * len(self.learners) if gradient.zero_weight else self.parallelism.reduce_and_step()
            if not all(map(math.isfinite, norms)):
                names = self.builder.names(rows)
                raise RunFailed(f"step {step + 1}: the gradient is not finite ({_listed(norms)}); rows {names}")
        finally:
            self.parallelism.zero_grad()
        self.states = gradient.states
        objective = self.builder.objective
        if self.moving and (fraction := objective.reference_update(step + 1)):
            self.moving.move(fraction, objective.reference_correction(step + 1))
        idle = {ZERO_WEIGHT: 1.0} if gradient.zero_weight else {}
        norm_of = dict(zip(("grad_norm", "critic_grad_norm"), norms, strict=False))
        return gradient.metrics | idle | norm_of | {"learning_rate": rate}, gradient.slots

    def _set_learning_rate(self, step: int) -> float:
        """Set the rate of every learner, and return the policy's."""
        factor = rate_factor(self.config.schedule, step, self.steps)
        rates = [learner.set_rate(factor) for learner in self.learners]
        return rates[0]

    def _observe(self, batch: ScoredBatch) -> None:
        if self.watch:
            self.watch.observe(batch)


def _listed(norms: Sequence[float]) -> str:
    """Return the norms as words: that of the policy, and of the critic if there is one."""
    return f"{norms[0]}" if len(norms) == 1 else f"{norms[0]}, and {norms[1]} of the critic"
