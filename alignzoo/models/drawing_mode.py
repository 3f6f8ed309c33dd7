"""The mode of a model that draws: no dropout, its own attention, bfloat16 where asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

from alignzoo.models.attention import own_attention


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Disable dropout, tree attention and gradient checkpointing inside the block.

    Gradient checkpointing would disable the cache.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with own_attention(model):
            yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def autocast_once(models: Sequence[PreTrainedModel], precision: str) -> Iterator[None]:
    """Run models in bfloat16 if that is the precision, with each weight converted once.

    Autocast keeps the converted copy of a weight only if the weight requires a gradient. So frozen ones, such as those
    under an adapter, do inside the block; no graph is made here.
    """
    if precision != "bfloat16":
        yield
        return
    weights = {id(one): one for model in models for one in model.parameters()}.values()
    frozen = [one for one in weights if type(one) is nn.Parameter and one.is_floating_point() and not one.requires_grad]
    for one in frozen:
        one.requires_grad_(True)
    try:
        with torch.autocast(models[0].device.type, torch.bfloat16):
            yield
    finally:
        for one in frozen:
            one.requires_grad_(False)
