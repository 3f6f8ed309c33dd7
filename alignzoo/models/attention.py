"""Switch a model between its own attention and tree attention."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel

NAME = "trees"


def can_attend_by_trees(model: PreTrainedModel) -> bool:
    """Return True if the model's attention can be replaced, and SDPA supports what it needs."""
    return model.config._attn_implementation in (NAME, "sdpa") and bool(model._can_set_attn_implementation())


def use_tree_attention(model: PreTrainedModel, on: bool = True) -> None:
    """Set the model's attention to `tree_attention`, or to SDPA with `on=False`."""
    if (model.config._attn_implementation == NAME) != on and can_attend_by_trees(model):
        model.set_attn_implementation(NAME if on else "sdpa")


@contextmanager
def own_attention(model: PreTrainedModel) -> Iterator[None]:
    """Use the attention that the model was loaded with inside the block."""
    switched = model.config._attn_implementation == NAME
    use_tree_attention(model, on=False)
    try:
        yield
    finally:
        use_tree_attention(model, on=switched)
