"""The embeddings of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def embedding_rows(model: PreTrainedModel) -> int:
    """Return the number of token ids that a model has embeddings for."""
    return int(model.get_input_embeddings().num_embeddings)  # type: ignore[arg-type]
