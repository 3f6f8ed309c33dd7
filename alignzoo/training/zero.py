"""Training with DeepSpeed's ZeRO, stages 1 and 2.

The optimizer state, and at stage 2 the gradients, are partitioned over the processes.

Every process has all weights, as one flat array in the order of the optimizer's parameters. Process r of n owns the
r-th of n equal partitions, with its optimizer state, and steps it. DeepSpeed sums the gradients (stage 1 once a step,
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
    """The recipe's optimizer, partitioned by ZeRO.

    It has the interface of one over the model's parameters, and full states.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, scorer: Scorer, ranks: Ranks, max_norm: float | None) -> None:
        (group,) = optimizer.param_groups
        self.parameters: list[Tensor] = list(group["params"])
        super().__init__(self.parameters, optimizer.defaults)
        self.ranks = ranks
        self.inner = optimizer
        self.engine = _engine(scorer, optimizer, ranks, max_norm)
        """Runs the scorer's forward; its outputs can be passed to `backward`."""
        (self.partition,) = optimizer.param_groups[0]["params"]
        """This process's partition of the weights, in the order of the parameters and padded at the end."""
        if not torch.equal(self._gather(self.partition.detach()), self._flatten(self.parameters)):
            raise UserError(
                "this version of DeepSpeed keeps weights in an order of its own", expected=f"deepspeed=={OLDEST}"
            )

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a scalar loss to what the step applies."""
        self.engine.backward(loss)

    def reduce_and_step(self) -> float:
        """Sum the remaining gradients, clip, step, and return the norm before clipping.

        There is no step if the norm is not finite.
        """
        used = self.ranks.all_gather([parameter.grad is not None for parameter in self.parameters])
        for parameter, by_rank in zip(self.parameters, zip(*used, strict=True), strict=True):
            if any(by_rank) and parameter.grad is None:  # all processes have to sum the same parameters
                parameter.grad = torch.zeros_like(parameter)
        self.inner.param_groups[0]["lr"] = self.param_groups[0]["lr"]
        with self.ranks.connected(), _quiet():
            self.engine.step()
        return float(self.engine.get_global_grad_norm())

    def state_dict(self) -> dict[str, Any]:
        """Return the state that the optimizer would have without ZeRO. Collective."""
        states: dict[int, dict[str, Any]] = {i: {} for i in range(len(self.parameters))}
        for key, value in self.inner.state[self.partition].items():
            partitioned = torch.is_tensor(value) and value.shape == self.partition.shape
            full = self._unflatten(self._gather(value)) if partitioned else [deepcopy(value) for _ in self.parameters]
            for i, tensor in enumerate(full):
                states[i][key] = tensor
        groups = [{**self.param_groups[0], "params": list(states)}]
        return {"state": {i: state for i, state in states.items() if state}, "param_groups": groups}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the full state of every parameter, and the present weights of the parameters."""
        self.partition.copy_(self._local(self._flatten(self.parameters)))
        states: dict[int, dict[str, Any]] = state_dict["state"]
        local_state = self.inner.state[self.partition]
        local_state.clear()
        for key in {key: None for state in states.values() for key in state}:
            values = {i: state[key] for i, state in states.items() if key in state}
            if any(value.shape == self.parameters[i].shape != () for i, value in values.items()):
                # a parameter that no step has used has no state yet
                full = [values.get(i, torch.zeros_like(parameter)) for i, parameter in enumerate(self.parameters)]
                local_state[key] = self._local(self._flatten(full)).clone()
            else:  # the number of steps: the same for all parameters, but for those that not every step has used
                local_state[key] = max(values.values())

    def _flatten(self, tensors: list[Tensor]) -> Tensor:
        """Concatenate tensors in one array, as long as all partitions together."""
        flat = self.partition.new_zeros(self.partition.numel() * self.ranks.count)
        offset = 0
        for tensor in tensors:
            flat[offset : offset + tensor.numel()] = tensor.detach().reshape(-1).to(flat)
            offset += tensor.numel()
        return flat

    def _local(self, flat: Tensor) -> Tensor:
        """Return this process's partition of such an array."""
        return flat.view(self.ranks.count, -1)[self.ranks.index]

    def _gather(self, partition: Tensor) -> Tensor:
        """Concatenate the partitions of all processes. Collective."""
        gathered = [torch.empty_like(partition) for _ in range(self.ranks.count)]
        with self.ranks.connected():
            dist.all_gather(gathered, partition)
        return torch.cat(gathered)

    def _unflatten(self, flat: Tensor) -> list[Tensor]:
        """Return a copy of each parameter's slice of such an array, in the parameter's shape."""
        sizes = [parameter.numel() for parameter in self.parameters]
        slices = flat[: sum(sizes)].split(sizes)
        return [one.view_as(parameter).clone() for one, parameter in zip(slices, self.parameters, strict=True)]


def wrap_with_zero(
    optimizer: torch.optim.Optimizer, scorer: Scorer, ranks: Ranks, max_norm: float | None, info: Callable[[str], None]
) -> torch.optim.Optimizer:
    """Partition the optimizer over the processes if the launch requests ZeRO.

    `max_norm` is the clipping limit.
    """
    if not ranks.zero:
        return optimizer
    info(f"optimizer: partitioned over {ranks.count} processes, by DeepSpeed's ZeRO, stage {ranks.zero}")
    return Zero(optimizer, scorer, ranks, max_norm)


def check_zero(model: PreTrainedModel, ranks: Ranks) -> None:
    """Raise UserError for a model that ZeRO would train differently from one process.

    This depends on the stage that the launch requests.
    """
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
