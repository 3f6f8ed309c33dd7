"""Rotary positions whose frequencies depend on the length of the sequence: LongRoPE and dynamic NTK.

transformers takes them from the longest sequence of a forward, and dynamic NTK keeps those of the longest one so far.
Sequences of one key, as they are computed here, have the same frequencies and may share a forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedConfig


@dataclass(frozen=True, slots=True)
class LengthRule:
    """Frequencies change for sequences of more than `threshold` tokens: once, or with every further token."""

    threshold: int
    every: bool


def length_rules(config: PreTrainedConfig) -> tuple[LengthRule, ...]:
    """The rules of a model, without repeats; empty where frequencies do not depend on the length.

    Sources: Ding et al. 2024 (arXiv:2402.13753) for LongRoPE, and transformers' `modeling_rope_utils`.
    """
    text = config.get_text_config()
    whole = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    nested = [part for part in whole.values() if isinstance(part, dict)]
    found = []
    for part in nested or [whole]:
        kind = str(part.get("rope_type") or part.get("type") or "default")
        if "dynamic" in kind:
            found.append(LengthRule(int(text.max_position_embeddings), True))
        elif kind == "longrope" or "long_mscale" in part:
            original = part.get("original_max_position_embeddings") or getattr(
                text, "original_max_position_embeddings", text.max_position_embeddings
            )
            found.append(LengthRule(int(original), False))
    return tuple(dict.fromkeys(found))


def length_keys(rules: Sequence[LengthRule], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """(S,) a number for each sequence length (S,), equal where the frequencies are."""
    columns = [np.where(lengths > rule.threshold, lengths if rule.every else 1, 0) for rule in rules]
    keys: NDArray[np.int64] = np.unique(np.stack(columns, 1), axis=0, return_inverse=True)[1].reshape(-1)
    return keys


def reset_frequencies(model: nn.Module) -> None:
    """Undo what longer sequences have left in modules with dynamic frequencies."""
    for module in model.modules():
        longest = getattr(module, "original_max_seq_len", None)
        if longest is None:
            continue
        for name in [name for name in vars(module) if name.endswith("max_seq_len_cached")]:
            _reset(module, name, longest)


def _reset(module: Any, name: str, longest: int) -> None:
    prefix = name.removesuffix("max_seq_len_cached")
    original = getattr(module, f"{prefix}original_inv_freq", None)
    if getattr(module, name) == longest or original is None:
        return
    module.register_buffer(f"{prefix}inv_freq", original.clone().to(getattr(module, f"{prefix}inv_freq").device), False)
    setattr(module, name, longest)
