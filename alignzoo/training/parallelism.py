"""Strategies for sharing a training step among processes: full copies, FSDP shards, ZeRO.

They differ in how a gradient is computed, summed and applied, and in whether a process can repeat a forward by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from alignzoo.core.distributed.gather import full_tensor
from alignzoo.core.distributed.process_group import Ranks
from alignzoo.scoring.microbatches import fail_on_oom
from alignzoo.training.learner import Learner
from alignzoo.training.master_weights import holders_of_gradients
from alignzoo.training.zero import Zero


class Parallelism:
    """Full copies of the model, in one process or several: gradients are summed once a step.

    The hooks of DistributedDataParallel would sum within the last backward. They require that every process uses every
    parameter, which an expert without tokens breaks, and that no process repeats a micro-batch after running out of
    memory.
    """

    def __init__(self, learners: Sequence[Learner], ranks: Ranks) -> None:
        self.learners, self.ranks = learners, ranks
        self.scorer = learners[0].scorer
        self.module: Any = self.scorer
        """Runs the scorer's forward; its outputs can be passed to `backward`."""
        self.collective = ranks.in_step
        """True if all processes run a forward or backward together, so that none can leave or repeat one."""

    @contextmanager
    def together(self, budget: int) -> Iterator[None]:
        """Run a forward or backward of micro-batches, in all processes if it is collective.

        Micro-batches have `budget` token slots.

        Raises:
            RunFailed: Memory runs out in a collective forward or backward, which can't be repeated.
            PeerLost: Another process has ended.
        """
        if not self.collective:
            yield
            return
        with self.ranks.connected(), fail_on_oom(budget):
            yield

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a scalar loss to what `reduce_and_step` applies."""
        loss.backward()

    def zero_grad(self) -> None:
        """Clear the gradients of all learners."""
        for learner in self.learners:
            learner.optimizer.zero_grad(set_to_none=True)

    def reduce_and_step(self) -> list[float]:
        """Sum the gradients over processes, clip them and step the optimizers.

        Returns:
            The norm of each learner's gradient before clipping. Unless all are finite no step is taken.
        """
        for learner in self.learners:
            self._reduce(learner)
        norms = [self._clip(learner) for learner in self.learners]
        if all(map(math.isfinite, norms)):
            for learner in self.learners:
                learner.optimizer.step()
        return norms

    def _reduce(self, learner: Learner) -> None:
        if self.ranks.count == 1:
            return
        parameters = holders_of_gradients(learner.optimizer)
        used = self.ranks.all_gather([parameter.grad is not None for parameter in parameters])
        for parameter, by_rank in zip(parameters, zip(*used, strict=True), strict=True):
            if any(by_rank):
                own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = self.ranks.sum(own)

    def _clip(self, learner: Learner) -> float:
        parameters = [parameter for parameter in holders_of_gradients(learner.optimizer) if parameter.grad is not None]
        limit = learner.max_grad_norm or math.inf
        norm = full_tensor(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
        found = float(norm)
        if found + 1e-6 > limit:  # below the limit torch would multiply every gradient by one
            nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        return found


class ShardedParallelism(Parallelism):
    """FSDP2, with a shard of every parameter in each process.

    Each backward sums the gradients.
    """

    def _reduce(self, learner: Learner) -> None:
        self.ranks.all_gather()  # errors of any process are raised in all before the step


class ZeroParallelism(Parallelism):
    """DeepSpeed's ZeRO: DeepSpeed sums, clips and steps."""

    def __init__(self, learner: Learner, zero: Zero, ranks: Ranks) -> None:
        super().__init__([learner], ranks)
        self.zero, self.module = zero, zero.engine

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a scalar loss, which stage 2 sums over processes at once."""
        self.zero.backward(loss)

    def reduce_and_step(self) -> list[float]:
        """Sum the gradients, clip them, step, and return the norm before clipping.

        Without a finite norm no step is taken.
        """
        return [self.zero.reduce_and_step()]


def choose_parallelism(learners: Sequence[Learner], ranks: Ranks) -> Parallelism:
    """Return the strategy of this launch. The policy is the first learner, ZeRO's only one."""
    optimizer = learners[0].optimizer
    if isinstance(optimizer, Zero):
        return ZeroParallelism(learners[0], optimizer, ranks)
    return ShardedParallelism(learners, ranks) if ranks.sharded else Parallelism(learners, ranks)
