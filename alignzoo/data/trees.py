"""Token trees: a prompt with its completions as branches, stored for many rows in flat arrays.

The policy is scored on prompt + branch. Only the branch's tokens from `scored_from` on are scored. The tokens before
them are context: turns that differ between the two dialogues of some HH rows.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

TokenIds = NDArray[np.int32]
BLOCK = 16_384
"""Number of trees processed at once to limit memory."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One completion. `tokens[scored_from:]` are scored, EOS included."""

    tokens: TokenIds
    scored_from: int = 0

    @property
    def scored(self) -> int:
        """Number of scored tokens."""
        return len(self.tokens) - self.scored_from


@dataclass(frozen=True, slots=True)
class Tree:
    """A prompt and its completions.

    The prompt has at least one token, from which the first completion token is predicted.
    """

    id: str
    prompt: TokenIds
    branches: tuple[Branch, ...]

    @property
    def slots(self) -> int:
        """Number of tokens with the prompt counted once, which is the number of slots in a packed layout."""
        return len(self.prompt) + sum(len(branch.tokens) for branch in self.branches)


def sequence_key(prompt: TokenIds, branch: Branch) -> bytes:
    """Return 16 bytes that identify a scored sequence: its token ids and the position where scoring starts."""
    digest = blake2b(digest_size=16)
    digest.update(np.int64(len(prompt) + branch.scored_from).tobytes())
    digest.update(np.ascontiguousarray(prompt, dtype=np.int32).tobytes())
    digest.update(np.ascontiguousarray(branch.tokens, dtype=np.int32).tobytes())
    return digest.digest()


def sequence_keys(trees: Trees) -> NDArray[np.uint8]:
    """Return the `sequence_key` of every branch as (branches, 16), in the order of trees and branches."""
    raw = np.ascontiguousarray(trees.tokens, dtype=np.int32).view(np.uint8).data
    cuts = (4 * trees.segments).tolist()
    segments, scored_from = trees.trees.tolist(), trees.scored_from.tolist()
    keys = bytearray()
    for first, last in zip(segments, segments[1:], strict=False):
        prompt = raw[cuts[first] : cuts[first + 1]]
        depth = len(prompt) // 4
        for s in range(first + 1, last):
            digest = blake2b((depth + scored_from[s]).to_bytes(8, sys.byteorder), digest_size=16)
            digest.update(prompt)
            digest.update(raw[cuts[s] : cuts[s + 1]])
            keys += digest.digest()
    return np.frombuffer(bytes(keys), np.uint8).reshape(-1, 16)


class Trees(Sequence[Tree]):
    """Sequence of trees in four flat arrays. Indexing and iterating create `Tree` views without copying.

    Segment s is `tokens[segments[s]:segments[s + 1]]`. Tree t has the segments `trees[t]` to `trees[t + 1]`: its prompt
    and then its branches. `scored_from` has one entry for each segment.
    """

    def __init__(
        self, ids: Sequence[str], tokens: TokenIds, segments: NDArray[np.int64], trees: NDArray[np.int64],
        scored_from: TokenIds, columns: Mapping[str, NDArray[np.float32]] | None = None, mismatched: bool = False,
        keys: NDArray[np.uint8] | None = None,
    ) -> None:  # fmt: skip
        self.ids, self.tokens, self.segments, self.trees, self.scored_from = ids, tokens, segments, trees, scored_from
        self._keys = keys
        self.columns = dict(columns or {})
        """Numbers from the data: name -> one value for each branch of each tree, nan if absent."""
        self.mismatched = mismatched
        """True if the second half of every tree's branches are completions of other rows (KTO's KL estimate)."""

    @property
    def first(self) -> NDArray[np.int64]:
        """(len + 1,) index of each tree's first branch among all branches. See `branches` for one tree."""
        return self.trees - np.arange(len(self.trees))

    def branches(self, index: int) -> tuple[int, int]:
        """Return the range (first, end) of a tree's branches among all branches."""
        return int(self.trees[index]) - index, int(self.trees[index + 1]) - index - 1

    @property
    def keys(self) -> NDArray[np.uint8]:
        """(branches of all trees, 16) `sequence_key` of each branch, stored with the tokens or computed from them."""
        return sequence_keys(self) if self._keys is None else self._keys

    def names(self, index: int) -> tuple[str, ...]:
        """Return the names of a tree's branches.

        A pair has `chosen` and `rejected`. A longer list has `rank_1`, `rank_2`, ... A single completion has its label
        (`desirable` or `undesirable`), or `chosen` without labels. Mismatched completions have the same names with the
        prefix `mismatched_`.
        """
        first, last = self.branches(index)
        own = (last - first) // (2 if self.mismatched else 1)
        names = ("chosen", "rejected") if own == 2 else tuple(f"rank_{k}" for k in range(1, own + 1))
        if own == 1 and "desirable" in self.columns:
            names = ("desirable" if self.columns["desirable"][first] > 0.5 else "undesirable",)
        elif own == 1:
            names = ("chosen",)
        return names + (tuple(f"mismatched_{name}" for name in names) if self.mismatched else ())

    def blocks(self, max_trees: int = BLOCK) -> Iterator[Trees]:
        """Yield the trees in parts of at most `max_trees`, to limit the memory of arithmetic on all of them."""
        for start in range(0, len(self), max_trees):
            trees = self.trees[start : start + max_trees + 1]
            segments = self.segments[trees[0] : trees[-1] + 1]
            own = slice(int(trees[0]) - start, int(trees[-1]) - start - len(trees) + 1)
            yield Trees(
                self.ids[start : start + max_trees], self.tokens[segments[0] : segments[-1]], segments - segments[0],
                trees - trees[0], self.scored_from[trees[0] : trees[-1]],
                {name: values[own] for name, values in self.columns.items()}, self.mismatched,
                None if self._keys is None else self._keys[own],
            )  # fmt: skip

    @property
    def parted(self) -> NDArray[np.bool_]:
        """(len,) True for trees with a branch that has context before its scored tokens."""
        starts = self.trees[:-1]
        return np.maximum.reduceat(self.scored_from, starts) > 0 if len(starts) else np.zeros(0, dtype=np.bool_)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(len,) number of tokens of each tree, with its prompt counted once."""
        return np.diff(self.segments[self.trees])

    def longest(self) -> int:
        """Return the number of tokens of the longest sequence (prompt + branch)."""
        longest = 0
        for block in self.blocks():
            sizes = np.diff(block.segments)
            sizes += np.repeat(sizes[block.trees[:-1]], np.diff(block.trees))  # doubles prompts; reset below
            sizes[block.trees[:-1]] = 0
            longest = max(longest, int(sizes.max()))
        return longest

    @classmethod
    def build(
        cls, items: Iterable[Tree], columns: Mapping[str, NDArray[np.float32]] | None = None, mismatched: bool = False
    ) -> Trees:
        """Copy trees into flat arrays."""
        ids: list[str] = []
        parts: list[TokenIds] = []
        scored_from: list[int] = []
        trees = [0]
        for tree in items:
            ids.append(tree.id)
            parts.append(np.asarray(tree.prompt, dtype=np.int32))
            parts.extend(np.asarray(branch.tokens, dtype=np.int32) for branch in tree.branches)
            scored_from.extend([0, *(branch.scored_from for branch in tree.branches)])
            trees.append(len(parts))
        segments = np.zeros(len(parts) + 1, dtype=np.int64)
        np.cumsum([len(part) for part in parts], out=segments[1:])
        tokens = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)
        return cls(
            ids, tokens, segments, np.asarray(trees, dtype=np.int64), np.asarray(scored_from, dtype=np.int32),
            columns, mismatched,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        t = int(index) % len(self)
        first, last = int(self.trees[t]), int(self.trees[t + 1])
        cuts = self.segments[first : last + 1].tolist()
        pieces = [self.tokens[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]
        branches = tuple(Branch(piece, int(self.scored_from[first + 1 + i])) for i, piece in enumerate(pieces[1:]))
        return Tree(self.ids[t], pieces[0], branches)

    def __iter__(self) -> Iterator[Tree]:
        return (self[i] for i in range(len(self)))
