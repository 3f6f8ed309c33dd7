"""Which rows a layout is tried on: the longest of all, and those on either side of every length that the config names.

A model can behave differently beyond a sliding window, an attention chunk, the length it was first trained at or the
number of keys that sparse attention keeps. All of these are integers in its config.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedConfig

from alignzoo.data.trees import Tree, Trees

WORDS = ("window", "chunk", "topk", "top_k", "original_max", "max_position", "n_positions", "n_ctx", "seq_len", "block")
"""Parts of the names of settings that are lengths of a sequence."""


def turning_points(config: PreTrainedConfig) -> list[int]:
    """Lengths, in tokens, at which a model with this config may begin to behave differently; rising."""
    return sorted(set(_lengths(config.get_text_config().to_dict())))


def _lengths(settings: Any, name: str = "") -> Iterator[int]:
    if isinstance(settings, dict):
        for key, value in settings.items():
            yield from _lengths(value, str(key))
    elif isinstance(settings, list):
        for value in settings:
            yield from _lengths(value, name)
    elif type(settings) is int and settings > 1 and any(word in name for word in WORDS):
        yield settings


def longest_by_tree(trees: Trees) -> NDArray[np.int64]:
    """(len,) tokens of each tree's longest sequence, prompt and branch together."""
    found = []
    for block in trees.blocks():
        sizes = np.diff(block.segments)
        prompts = sizes[block.trees[:-1]].copy()
        sizes[block.trees[:-1]] = 0
        found.append(prompts + np.maximum.reduceat(sizes, block.trees[:-1]))
    return np.concatenate(found)


def probe(trees: Trees, points: list[int], least: int = 4) -> list[Tree]:
    """The rows with the longest sequence and with the most slots, the shortest and the first, and for every turning
    point the rows nearest to it on both sides. At least `least` where there are so many.

    Short rows follow until those beside the longest take as many slots as it does, or pass every turning point.
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
    while len(chosen) < least or sizes[chosen].sum() <= wanted:
        following = next((row for row in more if row not in chosen), None)
        if following is None:
            break
        chosen.append(following)
    return [trees[row] for row in sorted(chosen, key=lambda row: -lengths[row])]
