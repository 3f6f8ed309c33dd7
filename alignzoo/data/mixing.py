"""Draw the training rows of a mixture, and put the rows of its sources in one order."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from operator import itemgetter
from random import Random
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
GOLDEN = 0x9E3779B97F4A7C15
"""Odd step of SplitMix64: 2^64 over the golden ratio."""


def draws(counts: Sequence[int], weights: Sequence[float]) -> list[int]:
    """Return how many rows of each source are drawn, in proportion to the weights.

    The number of rows is the largest possible. The source that is used up first, relative to its weight, gives all of
    its rows.

    Args:
        counts: The rows of each source.
        weights: The weight of each source.
    """
    largest = min(count / weight for count, weight in zip(counts, weights, strict=True))
    return [min(count, round(largest * weight)) for count, weight in zip(counts, weights, strict=True)]


def shares(counts: Sequence[int], limit: int) -> list[int]:
    """Divide `limit` rows among the sources in proportion to their counts.

    Fractions are rounded by largest remainders.
    """
    total = sum(counts)
    if limit >= total:
        return list(counts)
    whole = [limit * count // total for count in counts]
    order = sorted(range(len(counts)), key=lambda i: (-(limit * counts[i] % total), i))
    for i in order[: limit - sum(whole)]:
        whole[i] += 1
    return whole


def drawn(content: NDArray[np.int64], wanted: int, seed: int, name: str = "") -> NDArray[np.bool_]:
    """Choose rows at random without replacement, by the hashes of their content and a seed.

    The choice does not depend on the order of the rows. With the same seed, a smaller choice is part of a larger one.
    Repeated rows are drawn apart, within a source and in two sources.

    Args:
        content: (N,) hash of each row.
        wanted: Number of rows to choose.
        seed: Seed of the choice.
        name: Name of the source.

    Returns:
        (N,) True for the chosen rows.
    """
    chosen = np.zeros(len(content), dtype=np.bool_)
    salt = int.from_bytes(blake2b(f"{seed} {name}".encode(), digest_size=8).digest(), "big")
    hashes = content.view(np.uint64) + np.uint64(salt) + _repeats(content) * np.uint64(GOLDEN)
    chosen[np.argsort(_scrambled(hashes), kind="stable")[:wanted]] = True
    return chosen


def _repeats(content: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return for each hash how often it is there before."""
    order = np.argsort(content, kind="stable")
    places = np.arange(len(content), dtype=np.uint64)
    sorted_ = content[order]
    is_new = np.ones(len(content), np.bool_)
    is_new[1:] = sorted_[1:] != sorted_[:-1]
    found = np.empty_like(places)
    found[order] = places - np.maximum.accumulate(np.where(is_new, places, np.uint64(0)))
    return found


def _scrambled(mixed: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return other 64 bits for each hash: the finalizer of SplitMix64 (Steele et al. 2014)."""
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    scrambled: NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
    return scrambled


def interleave(
    streams: Mapping[str, Iterator[tuple[bool, T]]], counts: Mapping[str, int], seed: int
) -> Iterator[tuple[bool, T]]:
    """Merge the streams of sources so that the counted items of each are spread evenly.

    The places are random. Every beginning of the result has about the proportions of the whole. Each source keeps its
    own order.

    Args:
        streams: (is not counted, item) of each source.
        counts: Number of items that are counted, by source.
        seed: Seed of the places.
    """
    if len(streams) == 1:
        yield from next(iter(streams.values()))
        return
    placed = [_placed(stream, counts[name], Random(f"{seed} {name}")) for name, stream in streams.items()]
    yield from (item for _, item in heapq.merge(*placed, key=itemgetter(0)))


def _placed(
    stream: Iterator[tuple[bool, T]], count: int, random: Random
) -> Iterator[tuple[float, tuple[bool, T]]]:  # fmt: skip
    """Yield each item with its place in [0, 1).

    Items that are not counted stay behind the one before them.
    """
    place, n = 0.0, 0
    for beside, item in stream:
        if not beside:
            place, n = (n + random.random()) / count, n + 1
        yield place, (beside, item)
