"""A model cut into shards over the processes of a job (FSDP2), and what is whole again where it is read or written.

Each process keeps its share of every parameter, gradient and optimizer state, and gathers one layer's weights at a time
for a forward or backward. Whatever is saved is whole, so a run may go on with or without shards.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor


def reshard(model: nn.Module) -> None:
    """Let go of weights that a forward has gathered: the parameters are then the shards, which the optimizer knows."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def full_tensor(tensor: Tensor) -> Tensor:
    """All of a tensor of which this process may have a shard. Every process has to ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def full_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """A model's state with every tensor whole, and the names of one parameter still one tensor."""
    reshard(model)
    made: dict[int, Tensor] = {}
    state = model.state_dict(keep_vars=True)
    for tensor in state.values():
        if id(tensor) not in made:
            made[id(tensor)] = full_tensor(tensor.detach())
    return {name: made[id(tensor)] for name, tensor in state.items()}


def shard_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """A whole tensor, cut as the parameter is."""
    if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
        return tensor
    return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)


def own_class(model: nn.Module) -> type[Any]:
    """The class that a model had before it was cut."""
    return type(model).__mro__[2] if isinstance(model, FSDPModule) else type(model)
