"""Training with DeepSpeed's ZeRO, stages 1 and 2: optimizer state, and gradients, partitioned over processes.

Every process has all weights, as one flat array in the order of the optimizer's parameters. Process r of n owns the
r-th of n equal parts, with its optimizer state, and steps that part. DeepSpeed sums the gradients (stage 1 once a step,
stage 2 in each backward), clips, steps and gathers. Loss, learning rate and optimizer are those of the recipe.
Checkpoints hold full states.

Source: Rajbhandari et al. 2020, arXiv:1910.02054.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import PreTrainedModel

from alignzoo.core.distributed.accelerate_env import OLDEST
from alignzoo.core.distributed.process_group import Ranks
from alignzoo.core.errors import UserError
from alignzoo.scoring.scorer import Scorer

BUCKET = 50_000_000
"""Elements per reduction."""


class Zero(torch.optim.Optimizer):
    """The recipe's optimizer in parts, with the interface of one over the model's parameters and full states."""

    def __init__(self, optimizer: torch.optim.Optimizer, scorer: Scorer, ranks: Ranks, max_norm: float | None) -> None:
        (group,) = optimizer.param_groups
        self.parameters: list[Tensor] = list(group["params"])
        super().__init__(self.parameters, optimizer.defaults)
        self.ranks = ranks
        self.inner = optimizer
        self.engine = _engine(scorer, optimizer, ranks, max_norm)
        """Runs the scorer's forward; its outputs can be passed to `backward`."""
        (self.part,) = optimizer.param_groups[0]["params"]
        """This process's part of the weights, in the order of the parameters and padded at the end."""
        if not torch.equal(self._whole(self.part.detach()), self._flat(self.parameters)):
            raise UserError(
                "this version of DeepSpeed keeps weights in an order of its own", expected=f"deepspeed=={OLDEST}"
            )

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a scalar loss to what the step applies."""
        self.engine.backward(loss)

    def reduce_and_step(self) -> float:
        """Sum the remaining gradients, clip and step. Returns the norm before clipping; no step if it is not finite."""
        used = self.ranks.all_gather([parameter.grad is not None for parameter in self.parameters])
        for parameter, by in zip(self.parameters, zip(*used, strict=True), strict=True):
            if any(by) and parameter.grad is None:  # all processes have to sum the same parameters
                parameter.grad = torch.zeros_like(parameter)
        self.inner.param_groups[0]["lr"] = self.param_groups[0]["lr"]
        with self.ranks.connected(), _quiet():
            self.engine.step()
        return float(self.engine.get_global_grad_norm())

    def state_dict(self) -> dict[str, Any]:
        """Return the state that the optimizer would have without ZeRO. Collective."""
        found: dict[int, dict[str, Any]] = {i: {} for i in range(len(self.parameters))}
        for key, value in self.inner.state[self.part].items():
            parted = torch.is_tensor(value) and value.shape == self.part.shape
            pieces = self._pieces(self._whole(value)) if parted else [deepcopy(value) for _ in self.parameters]
            for i, piece in enumerate(pieces):
                found[i][key] = piece
        groups = [{**self.param_groups[0], "params": list(found)}]
        return {"state": {i: state for i, state in found.items() if state}, "param_groups": groups}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the full state of every parameter, and the present weights of the parameters."""
        self.part.copy_(self._own(self._flat(self.parameters)))
        states: dict[int, dict[str, Any]] = state_dict["state"]
        mine = self.inner.state[self.part]
        mine.clear()
        for key in {key: None for state in states.values() for key in state}:
            given = {i: state[key] for i, state in states.items() if key in state}
            if any(value.shape == self.parameters[i].shape != () for i, value in given.items()):
                # a parameter that no step has used has no state yet
                every = [given.get(i, torch.zeros_like(one)) for i, one in enumerate(self.parameters)]
                mine[key] = self._own(self._flat(every)).clone()
            else:  # the number of steps: the same for all parameters, but for those that not every step has used
                mine[key] = max(given.values())

    def _flat(self, tensors: list[Tensor]) -> Tensor:
        """The tensors in one array, as long as all parts together."""
        flat = self.part.new_zeros(self.part.numel() * self.ranks.count)
        done = 0
        for tensor in tensors:
            flat[done : done + tensor.numel()] = tensor.detach().reshape(-1).to(flat)
            done += tensor.numel()
        return flat

    def _own(self, flat: Tensor) -> Tensor:
        return flat.view(self.ranks.count, -1)[self.ranks.index]

    def _whole(self, part: Tensor) -> Tensor:
        """The parts of all processes, concatenated."""
        parts = [torch.empty_like(part) for _ in range(self.ranks.count)]
        with self.ranks.connected():
            dist.all_gather(parts, part)
        return torch.cat(parts)

    def _pieces(self, flat: Tensor) -> list[Tensor]:
        """The slice of such an array for each parameter."""
        sizes = [parameter.numel() for parameter in self.parameters]
        pieces = flat[: sum(sizes)].split(sizes)
        return [piece.view_as(one).clone() for piece, one in zip(pieces, self.parameters, strict=True)]


def wrap_with_zero(
    optimizer: torch.optim.Optimizer, scorer: Scorer, ranks: Ranks, max_norm: float | None, info: Callable[[str], None]
) -> torch.optim.Optimizer:
    """Partition the optimizer over the processes if the launch requests ZeRO. `max_norm` is the clipping limit."""
    if not ranks.zero:
        return optimizer
    info(f"optimizer: in parts on {ranks.count} processes, by DeepSpeed's ZeRO, stage {ranks.zero}")
    return Zero(optimizer, scorer, ranks, max_norm)


def check_zero(model: PreTrainedModel, ranks: Ranks) -> None:
    """Raise UserError for a model that the requested stage of ZeRO would train differently from one process."""
    if ranks.zero and any(parameter.dtype != torch.float32 for parameter in model.parameters()):
        raise UserError(
            "ZeRO keeps float32 masters in an order of its own, which checkpoints can't store", where="model.dtype",
            expected="float32 (train.precision=bfloat16 computes in bfloat16), or recipes/accelerate/fsdp2.yaml",
        )  # fmt: skip
    config = model.config.get_text_config().to_dict()
    if ranks.zero == 2 and any("expert" in name and value for name, value in config.items()):
        raise UserError(
            "ZeRO stage 2 sums gradients in each backward, where every process has to use every expert",
            where="deepspeed_config.zero_stage", expected="1, or recipes/accelerate/fsdp2.yaml",
        )  # fmt: skip


def _engine(scorer: Scorer, optimizer: torch.optim.Optimizer, ranks: Ranks, max_norm: float | None) -> Any:
    os.environ["DS_ACCELERATOR"] = ranks.device.type  # else it takes a GPU that it sees
    with _quiet():
        import deepspeed

        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)  # its warnings are about the settings made here
        # Only inference uses it, and it would have to be compiled first.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        settings = {
            "train_micro_batch_size_per_gpu": 1,  # required, and without effect here
            "gradient_allreduce_op": "sum",
            "managed_gradient_accumulation": False,  # `reduce_and_step` decides when a step is taken
            "gradient_clipping": max_norm or 0.0,
            "zero_allow_untested_optimizer": True,
            "zero_optimization": {
                "stage": ranks.zero,
                "contiguous_gradients": ranks.zero == 2,
                "overlap_comm": False,
                "reduce_bucket_size": BUCKET,
            },
            "timers": {"throughput": {"enabled": False}},
        }
        engine, *_ = deepspeed.initialize(model=scorer, optimizer=optimizer, config=settings)
    return engine


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress torch's warnings about DeepSpeed's use of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
