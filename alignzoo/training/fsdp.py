"""Place a scorer on its device, or shard it with FSDP2."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from transformers.modeling_layers import GradientCheckpointingLayer

from alignzoo.core.distributed.process_group import Ranks
from alignzoo.core.errors import UserError
from alignzoo.scoring.scorer import Scorer


def shard_or_move(scorer: Scorer, ranks: Ranks) -> None:
    """Move the scorer's model to this process's device, or shard it with FSDP2.

    The shards are spread over the processes.

    Raises:
        UserError: This version of torch can't sum the gradients of shards.
    """
    if not ranks.sharded:
        scorer.to(ranks.device)
        return
    model: Any = scorer.model
    mesh = init_device_mesh(ranks.device.type, (ranks.count,))
    again = os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() not in ("false", "no_shard", "shard_grad_op")
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    wide_sums = MixedPrecisionPolicy(reduce_dtype=torch.float32)  # bfloat16 gradients too, before they are rounded once
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=again, mp_policy=wide_sums)
    fully_shard(model, mesh=mesh, reshard_after_forward=False, mp_policy=wide_sums)
    for module in (*layers, model):
        if not hasattr(module, "set_force_sum_reduction_for_comms"):
            raise UserError(f"torch {torch.__version__} can't sum the gradients of shards", expected="torch 2.9")
        module.set_gradient_divide_factor(1.0)  # a step's loss is a sum over all ranks, and so is its gradient
        module.set_force_sum_reduction_for_comms(True)
    # The scorer's forward is not the model's own; FSDP has to gather the weights for it too.
    model.scored = scorer.forward
    register_fsdp_forward_method(model, "scored")
    scorer.forward = model.scored  # type: ignore[method-assign]
