"""Select rows that test a layout: the longest, and those around each length in the config.

A model can behave differently beyond a sliding window, an attention chunk, the length of its first training, or the
number of keys that sparse attention keeps. All of these are integers in its config.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedConfig

from alignzoo.data.trees import Tree, Trees

LENGTH_WORDS = (
    "window",
    "chunk",
    "topk",
    "top_k",
    "original_max",
    "max_position",
    "n_positions",
    "n_ctx",
    "seq_len",
    "block",
)
"""Words in the names of settings that are sequence lengths."""


def turning_points(config: PreTrainedConfig) -> list[int]:
    """Return the lengths in tokens, ascending, beyond which such a model may change behavior."""
    return sorted(set(_lengths(config.get_text_config().to_dict())))


def _lengths(settings: Any, name: str = "") -> Iterator[int]:
    if isinstance(settings, dict):
        for key, value in settings.items():
            yield from _lengths(value, str(key))
    elif isinstance(settings, list):
        for value in settings:
            yield from _lengths(value, name)
    elif type(settings) is int and settings > 1 and any(word in name for word in LENGTH_WORDS):
        yield settings


def longest_by_tree(trees: Trees) -> NDArray[np.int64]:
    """Return (len,) the number of tokens of each tree's longest sequence (prompt + branch)."""
    longest = []
    for block in trees.blocks():
        sizes = np.diff(block.segments)
        prompts = sizes[block.trees[:-1]].copy()
        sizes[block.trees[:-1]] = 0
        longest.append(prompts + np.maximum.reduceat(sizes, block.trees[:-1]))
    return np.concatenate(longest)


def probe(trees: Trees, points: list[int], min_rows: int = 4) -> list[Tree]:
    """Select trees that test a layout.

    The selection has the tree with the longest sequence, the largest, the smallest and the first tree, and for every
    turning point the nearest trees on both sides. More trees are added until their total size exceeds all turning
    points, or twice the size of the largest tree.

    Args:
        trees: All trees.
        points: The model's `turning_points`.
        min_rows: Minimum number of trees to select, if there are as many.

    Returns:
        The selected trees, longest first.
    """
    lengths, sizes = longest_by_tree(trees), trees.sizes
    chosen = [int(lengths.argmax()), int(sizes.argmax()), 0, int(sizes.argmin())]
    for point in points:
        for values in (lengths, sizes):
            above, below = np.flatnonzero(values > point), np.flatnonzero(values <= point)
            if len(above) and len(below):
                chosen += [int(above[values[above].argmin()]), int(below[values[below].argmax()])]
    chosen = list(dict.fromkeys(chosen))
    wanted = min(max(points, default=0), 2 * int(sizes.max()))
    more = iter(np.argsort(-sizes[:512], kind="stable").tolist())
    while len(chosen) < min_rows or sizes[chosen].sum() <= wanted:
        following = next((row for row in more if row not in chosen), None)
        if following is None:
            break
        chosen.append(following)
    return [trees[row] for row in sorted(chosen, key=lambda row: -lengths[row])]
