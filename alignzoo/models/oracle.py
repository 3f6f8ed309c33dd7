"""The log-probs that every faster way is compared with: the model's own forward, one sequence at a time.

The attention is the one the model was loaded with, and frequencies that an earlier forward left behind are reset first,
so the result depends on nothing but the weights and the tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from alignzoo.data.trees import Branch, TokenIds
from alignzoo.models.attention import own_attention
from alignzoo.models.rope import reset_frequencies

NARROW = (torch.bfloat16, torch.float16)
LIMIT = {torch.float32: 1e-3, torch.float64: 1e-6}
"""Largest difference of a log-prob, in nats, that is rounding. A mask that a model ignores is off by whole nats."""
NARROW_LIMIT = 0.25
"""The same of weights of 16 bits that can't be held in float32."""


def limit_of(model: PreTrainedModel) -> float:
    """The largest difference that is rounding, of a model as it is held now."""
    return LIMIT.get(model.dtype, NARROW_LIMIT)


@torch.no_grad()
def sequence_logits(model: PreTrainedModel, tokens: TokenIds) -> Tensor:
    """Logits (W, V) after each token of one sequence; of a reward model (1,), its number. In the model's own type."""
    ids = torch.from_numpy(np.asarray(tokens)).long().to(next(model.parameters()).device)
    with own_attention(model):
        reset_frequencies(model)
        logits: Tensor = model(ids[None], use_cache=False).logits[0]
    return logits


def sequence_log_probs(model: PreTrainedModel, prompt: TokenIds, branch: Branch) -> Tensor:
    """Log-probs (N,), in nats, of the scored tokens of one sequence; float32, or float64 where the model is."""
    tokens = np.concatenate([prompt, branch.tokens])
    first = len(prompt) + branch.scored_from
    logits = sequence_logits(model, tokens)[first - 1 : -1]
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    target = torch.from_numpy(tokens[first:]).long().to(logits.device)
    return wide.log_softmax(-1).gather(1, target[:, None])[:, 0]


@contextmanager
def in_float32(model: nn.Module, wanted: bool = True) -> Iterator[None]:
    """Hold weights of 16 bits in float32, which is exact, and put the very same tensors back afterwards.

    Nothing changes where they can't be (quantized weights, and shards), or where it is not `wanted`.
    """
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    narrow = [(tensor, tensor.data) for tensor in tensors.values() if tensor.dtype in NARROW]
    if getattr(model, "hf_quantizer", None) is not None or any(
        hasattr(part, "placements") for part in tensors.values()
    ):
        yield
        return
    try:
        for tensor, data in narrow:
            tensor.data = data.float()
        yield
    finally:
        for tensor, data in narrow:
            tensor.data = data


def sharded(model: nn.Module) -> bool:
    """Whether this process holds a part of each parameter alone."""
    return any(hasattr(parameter, "placements") for parameter in model.parameters())
