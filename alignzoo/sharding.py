"""A model cut into shards over the processes of a job (FSDP2), and what is whole again where it is read or written.

Each process keeps its share of every parameter, gradient and optimiser state, and gathers one layer's weights at a time
for a forward or backward. Whatever is saved is whole, so a run may go on with or without shards.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from alignzoo.errors import UserError
from alignzoo.ranks import Ranks
from alignzoo.scoring import Scorer


def place(scorer: Scorer, ranks: Ranks) -> None:
    """Put the scorer's model where it is trained: whole on this process's device, or cut into shards."""
    if not ranks.sharded:
        scorer.to(ranks.device)
        return
    model: Any = scorer.model
    mesh = init_device_mesh(ranks.device.type, (ranks.count,))
    again = os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() not in ("false", "no_shard", "shard_grad_op")
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=again)
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    for module in (*layers, model):
        if not hasattr(module, "set_force_sum_reduction_for_comms"):
            raise UserError(f"torch {torch.__version__} can't add up the gradients of shards", expected="torch 2.9")
        module.set_gradient_divide_factor(1.0)  # a step's loss is a sum over all ranks, and so is its gradient
        module.set_force_sum_reduction_for_comms(True)
    # What scores a forest is not the model's own forward; it has to gather the weights as that one does.
    model.scored = scorer.forward
    register_fsdp_forward_method(model, "scored")
    scorer.forward = model.scored  # type: ignore[method-assign]


def settle(model: nn.Module) -> None:
    """Let go of weights that a forward has gathered: the parameters are then the shards, which the optimiser knows."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor of which this process may have a shard. Every process has to ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_state(model: nn.Module) -> dict[str, Tensor]:
    """A model's state with every tensor whole, and the names of one parameter still one tensor."""
    settle(model)
    made: dict[int, Tensor] = {}
    state = model.state_dict(keep_vars=True)
    for tensor in state.values():
        if id(tensor) not in made:
            made[id(tensor)] = whole(tensor.detach())
    return {name: made[id(tensor)] for name, tensor in state.items()}


def cut_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """A whole tensor, cut as the parameter is."""
    if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
        return tensor
    return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)


def own_class(model: nn.Module) -> type[Any]:
    """The class that a model had before it was cut."""
    return type(model).__mro__[2] if isinstance(model, FSDPModule) else type(model)
