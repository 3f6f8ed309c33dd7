"""Group sequences by length-dependent rotary frequencies (LongRoPE, dynamic NTK).

transformers computes the frequencies from the longest sequence of a forward pass, and dynamic NTK keeps those of the
longest sequence so far. Sequences with equal keys have equal frequencies and can share a forward pass.
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
    """Length beyond which frequencies change: once, or with every further token if `every`."""

    threshold: int
    every: bool


def length_rules(config: PreTrainedConfig) -> tuple[LengthRule, ...]:
    """Return the distinct rules of a model, () if its frequencies don't depend on the length.

    Sources: Ding et al. 2024 (arXiv:2402.13753) for LongRoPE, and transformers' `modeling_rope_utils`.
    """
    text = config.get_text_config()
    parameters = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    nested = [part for part in parameters.values() if isinstance(part, dict)]
    rules = []
    for part in nested or [parameters]:
        kind = str(part.get("rope_type") or part.get("type") or "default")
        if "dynamic" in kind:
            rules.append(LengthRule(int(text.max_position_embeddings), True))
        elif kind == "longrope" or "long_mscale" in part:
            original = part.get("original_max_position_embeddings") or getattr(
                text, "original_max_position_embeddings", text.max_position_embeddings
            )
            rules.append(LengthRule(int(original), False))
    return tuple(dict.fromkeys(rules))


def length_keys(rules: Sequence[LengthRule], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (S,) one number for each sequence length (S,), equal for equal frequencies."""
    columns = [np.where(lengths > rule.threshold, lengths if rule.every else 1, 0) for rule in rules]
    keys: NDArray[np.int64] = np.unique(np.stack(columns, 1), axis=0, return_inverse=True)[1].reshape(-1)
    return keys


def reset_frequencies(model: nn.Module) -> None:
    """Restore the original frequencies of modules that longer sequences have changed."""
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
