"""Compute reference log-probs with the model's own forward pass, one sequence at a time.

Every faster method is compared with these. They use the attention that the model was loaded with and reset rotary
frequencies left by earlier passes. The result depends on the weights and the tokens alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from alignzoo.core.errors import RunFailed, UserError, first_line
from alignzoo.data.trees import Branch, TokenIds
from alignzoo.models.attention import own_attention
from alignzoo.models.rope import reset_frequencies

NARROW = (torch.bfloat16, torch.float16)
LIMIT = {torch.float32: 1e-3, torch.float64: 1e-6}
"""Largest rounding difference of a log-prob, in nats. An ignored mask causes differences of whole nats."""
NARROW_LIMIT = 0.25
"""The same for 16-bit weights that can't be converted to float32."""


def limit_of(model: PreTrainedModel) -> float:
    """Return the largest rounding difference of a log-prob, in nats, for the model's dtype."""
    return LIMIT.get(model.dtype, NARROW_LIMIT)


@torch.no_grad()
def sequence_logits(model: PreTrainedModel, tokens: TokenIds) -> Tensor:
    """Return a sequence's logits (W, V) after each token, or a reward model's score (1,).

    Both are in the model's dtype.
    """
    ids = torch.from_numpy(np.asarray(tokens)).long().to(next(model.parameters()).device)
    with own_attention(model), _forward_errors(model):
        reset_frequencies(model)
        logits: Tensor = model(ids[None], use_cache=False).logits[0]
    return logits


@contextmanager
def _forward_errors(model: PreTrainedModel) -> Iterator[None]:
    """Convert an error of the model's own code to a UserError.

    The cause is a config whose settings don't fit together.
    """
    try:
        yield
    except (UserError, RunFailed, MemoryError):
        raise
    except Exception as error:
        if "memory" in str(error):
            raise
        raise UserError(
            f"the forward pass of {type(model).__name__} fails: {type(error).__name__}: {first_line(error)[:200]}",
            where=f"model: {model.config._name_or_path or 'config'}", expected="a config that fits the architecture",
        ) from error  # fmt: skip


def sequence_log_probs(model: PreTrainedModel, prompt: TokenIds, branch: Branch, temperature: float = 1.0) -> Tensor:
    """Return log-probs (N,) in nats of the scored tokens of one sequence.

    They are float32, or float64 for a model in float64.
    """
    tokens = np.concatenate([prompt, branch.tokens])
    logits, found = sequence_logits(model, tokens), []
    for start, stop in (len(prompt) + branch.spans).tolist():
        before = logits[start - 1 : stop - 1]
        wide = before.to(torch.promote_types(before.dtype, torch.float32)) / temperature
        target = torch.from_numpy(tokens[start:stop]).long().to(logits.device)
        found.append(wide.log_softmax(-1).gather(1, target[:, None])[:, 0])
    return torch.cat(found)


@contextmanager
def in_float32(model: nn.Module, wanted: bool = True) -> Iterator[None]:
    """Convert 16-bit weights to float32 inside the block, and restore the tensors after it.

    The conversion is exact. Quantized and sharded weights stay unchanged. With `wanted=False` the block runs unchanged
    as well.
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
    """Return True if this process holds only a shard of each parameter."""
    return any(hasattr(parameter, "placements") for parameter in model.parameters())
