"""Continuous batching of replies that share prompts.

Prompts join while the batch runs, and finished replies leave at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from alignzoo.models.positions import first_position
from alignzoo.models.shared_prompt import PromptCache, attending

PREFILL = 4096
"""Tokens of prompts that a forward reads at a time, or one prompt."""


@dataclass(frozen=True)
class Capacity:
    """The most replies and prompts that a batch holds."""

    rows: int
    slots: int

    @classmethod
    def within(cls, budget: int, sizes: Sequence[int], width: int, new_tokens: int) -> Capacity:
        """Return the capacity for prompts of `width` tokens with `sizes` replies, within a budget.

        The budget counts tokens. A reply of a large group may run long after the others of its prompt, so that there
        are up to twice as many slots for prompts as full groups. There is room for the largest group, or for one reply
        at least.
        """
        rows, slots = sum(sizes), len(sizes)
        if rows * new_tokens + slots * width > budget:
            mean = rows / slots
            spare = 2 - 1 / mean
            rows = min(rows, max(1, int(budget / (new_tokens + spare * width / mean))))
            slots = min(slots, max(1, math.ceil(spare * rows / mean)))
        return cls(rows, slots)


class SharedBatch:
    """Replies that grow by one token at a time, and read the keys and values of their prompts.

    Args:
        model: The model, inside `shared_prompt_attention`.
        capacity: The most replies and prompts at a time.
        width: The most tokens of a prompt.
        new_tokens: The most tokens of a reply.
    """

    def __init__(self, model: PreTrainedModel, capacity: Capacity, width: int, new_tokens: int) -> None:
        self.model, self.first_position = model, first_position(model)
        self.cache = PromptCache(capacity.slots, capacity.rows, width, new_tokens - 1, model.device)

    def fits(self, replies: int, prompts: int = 1) -> bool:
        """Return True if there is room for more."""
        cache = self.cache
        return len(cache.slot) + replies <= cache.rows and len(cache.lengths) + prompts <= cache.slots

    def add(self, prompts: Sequence[NDArray[Any]], sizes: Sequence[int]) -> Tensor:
        """Prefill prompts, add `sizes` replies to each, and return their first logits.

        The logits are (sum of sizes, V).
        """
        first, logits, at = len(self.cache.lengths), [], 0
        while at < len(prompts):
            part = [prompts[at]]
            while at + len(part) < len(prompts) and sum(map(len, part)) + len(prompts[at + len(part)]) <= PREFILL:
                part.append(prompts[at + len(part)])
            lengths = [len(prompt) for prompt in part]
            self.cache.add_prompts(lengths)
            position = np.concatenate([np.arange(length) for length in lengths])
            last = torch.tensor(np.cumsum(lengths) - 1, device=self.model.device)
            tokens = torch.from_numpy(np.concatenate(part).astype(np.int64))
            logits.append(self._forward(tokens.to(self.model.device), position, last))
            at += len(part)
        slots = np.repeat(np.arange(first, first + len(prompts)), sizes)
        self.cache.add_rows(slots)
        return torch.cat(logits)[torch.from_numpy(slots - first).to(self.model.device)]

    def step(self, tokens: Tensor) -> Tensor:
        """Append a token (n,) to each reply, and return the logits (n, V) after it."""
        logits = self._forward(tokens, self.cache.positions, 0)
        self.cache.advance()
        return logits

    def keep(self, active: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Remove all other replies, and return for each that is left its index before."""
        return self.cache.keep(active)

    def _forward(self, tokens: Tensor, position: NDArray[np.int64], keep: Any) -> Tensor:
        positions = torch.from_numpy(position + self.first_position).to(tokens.device)
        marker = torch.zeros((1, 1, 1, 1), dtype=torch.int64, device=tokens.device)  # models make no mask of their own
        with attending(self.cache):
            logits: Tensor = self.model(
                input_ids=tokens[None], position_ids=positions[None], attention_mask=marker, use_cache=False,
                logits_to_keep=keep,
            ).logits[0]  # fmt: skip
        return logits.to(torch.promote_types(logits.dtype, torch.float32))
