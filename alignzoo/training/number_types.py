"""Words on `model.dtype` and `train.precision`, and the memory that they cost."""

from __future__ import annotations

from collections.abc import Mapping

from alignzoo.recipe.schema import Recipe

GIB = 2**30
STATIC = ("weights", "gradients", "optimizer", "master weights")
"""Parts of a run's memory that the types of its numbers decide."""


def type_words(recipe: Recipe) -> str:
    """Return a line on the types in which a run keeps weights and computes."""
    dtype, precision = recipe.model.dtype, recipe.train.precision
    size = 2 if dtype == "bfloat16" else 4
    kept = f"weights in {dtype} (model.dtype, {size} bytes each)"
    if recipe.model.quantize:
        kept = f"frozen weights in {recipe.model.quantize}s (model.quantize), the rest in {dtype} (model.dtype)"
    if precision == "bfloat16":
        how = "matrix products in bfloat16 and sums in float32 (train.precision: autocast)"
    else:
        how = f"computed in {dtype} too (train.precision=float32: no autocast)"
    return f"{kept}, {how}"


def static_words(parts: Mapping[str, int]) -> str:
    """Return a line on the memory that lasts for the whole run, from bytes by part."""
    words = [f"{name} {gib(parts[name])}" for name in STATIC if parts.get(name)]
    return f"{', '.join(words)}; activations and logits come on top"


def gib(size: int) -> str:
    """Return bytes as GiB, or as MiB below 0.1 GiB."""
    return f"{size / GIB:,.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:,.1f} MiB"
