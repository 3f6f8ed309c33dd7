"""Full tensors of a model that FSDP2 has sharded, and shards of full tensors.

Each process keeps its share of every parameter, gradient and optimizer state, and gathers one layer at a time for a
forward or backward. Files hold full tensors, so a run may continue with or without shards.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor


def reshard(model: nn.Module) -> None:
    """Free the weights gathered by a forward, so that the parameters are shards again.

    The optimizer holds these shards.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def full_tensor(tensor: Tensor) -> Tensor:
    """Return the full tensor of a shard, and any other tensor as it is.

    Collective: every process has to call it.
    """
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def full_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's state with full tensors; tied parameters stay one tensor. Collective."""
    reshard(model)
    full: dict[int, Tensor] = {}
    state = model.state_dict(keep_vars=True)
    for tensor in state.values():
        if id(tensor) not in full:
            full[id(tensor)] = full_tensor(tensor.detach())
    return {name: full[id(tensor)] for name, tensor in state.items()}


def shard_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """Return this process's shard of a full tensor, for a parameter that is sharded."""
    if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
        return tensor
    return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)


def own_class(model: nn.Module) -> type[Any]:
    """Return the class that a model had before it was sharded."""
    return type(model).__mro__[2] if isinstance(model, FSDPModule) else type(model)
