"""Switch a model between its own attention and attention by trees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel

NAME = "trees"


def can_attend_by_trees(model: PreTrainedModel) -> bool:
    """False when the model's layers do not let their attention be chosen, or need more than SDPA can do."""
    return model.config._attn_implementation in (NAME, "sdpa") and bool(model._can_set_attn_implementation())


def use_tree_attention(model: PreTrainedModel, on: bool = True) -> None:
    """Have the model's layers call `tree_attention`, or with `on=False` what they were loaded with, which is SDPA."""
    if (model.config._attn_implementation == NAME) != on and can_attend_by_trees(model):
        model.set_attn_implementation(NAME if on else "sdpa")


@contextmanager
def own_attention(model: PreTrainedModel) -> Iterator[None]:
    """Run what is inside with the attention that the model was loaded with."""
    switched = model.config._attn_implementation == NAME
    use_tree_attention(model, on=False)
    try:
        yield
    finally:
        use_tree_attention(model, on=switched)
