"""Position ids of a model: where they start, and how many tokens they allow."""

from __future__ import annotations

import inspect

from transformers import PreTrainedModel


def first_position(model: PreTrainedModel) -> int:
    """Return the first token's position id: 0, or `padding_idx + 1` for RoBERTa-like models.

    Those make position ids from token ids: padding has the position `padding_idx`, and other tokens count from there.
    """
    if "position_ids" not in inspect.signature(model.base_model.forward).parameters:
        return 0
    made = (module for module in model.modules() if hasattr(module, "create_position_ids_from_input_ids"))
    padding = (getattr(module, "padding_idx", None) for module in made)
    return next((index + 1 for index in padding if index is not None), 0)


def max_tokens(model: PreTrainedModel) -> int | None:
    """Return the longest sequence that the model has positions for, None without a limit."""
    positions: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return None if positions is None else positions - first_position(model)
