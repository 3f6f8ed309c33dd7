"""Token trees: a prompt's tokens with the completions as branches, many of them in flat arrays.

The prompt is tokenized once and each branch continues it, so prompt + branch is exactly what the policy is scored on.
Of a branch only the tokens from `scored_from` on are scored (before them may stand turns that differ between the two
dialogues of an odd HH row).
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
"""Trees that are worked on at once where all of them would take too much memory."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One completion. `tokens[scored_from:]` is what is scored, EOS included."""

    tokens: TokenIds
    scored_from: int = 0

    @property
    def scored(self) -> int:
        """How many tokens are scored."""
        return len(self.tokens) - self.scored_from


@dataclass(frozen=True, slots=True)
class Tree:
    """`prompt` is never empty: the first completion token needs a token to be predicted from."""

    id: str
    prompt: TokenIds
    branches: tuple[Branch, ...]

    @property
    def slots(self) -> int:
        """Token slots that it takes in a forest: the prompt once, then every branch."""
        return len(self.prompt) + sum(len(branch.tokens) for branch in self.branches)


def sequence_key(prompt: TokenIds, branch: Branch) -> bytes:
    """16 bytes that identify what is scored: the token ids and where scoring starts, nothing else."""
    digest = blake2b(digest_size=16)
    digest.update(np.int64(len(prompt) + branch.scored_from).tobytes())
    digest.update(np.ascontiguousarray(prompt, dtype=np.int32).tobytes())
    digest.update(np.ascontiguousarray(branch.tokens, dtype=np.int32).tobytes())
    return digest.digest()


def sequence_keys(trees: Trees) -> NDArray[np.uint8]:
    """(branches, 16) `sequence_key` of every branch of every tree, in the order of trees and branches."""
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
    """Many trees in four flat arrays. Iterating makes `Tree` views; nothing is copied.

    `tokens` holds segment after segment; segment s is `tokens[segments[s]:segments[s + 1]]`. Tree t owns the segments
    `trees[t]` up to `trees[t + 1]`: its prompt first, then its branches. `scored_from` has one entry per segment.
    """

    def __init__(
        self, ids: Sequence[str], tokens: TokenIds, segments: NDArray[np.int64], trees: NDArray[np.int64],
        scored_from: TokenIds, columns: Mapping[str, NDArray[np.float32]] | None = None, mismatched: bool = False,
        keys: NDArray[np.uint8] | None = None,
    ) -> None:  # fmt: skip
        self.ids, self.tokens, self.segments, self.trees, self.scored_from = ids, tokens, segments, trees, scored_from
        self._keys = keys
        self.columns = dict(columns or {})
        """Numbers that came with the data: name -> one for each branch of each tree, nan where there is none."""
        self.mismatched = mismatched
        """Whether the second half of every tree's branches are completions of other rows (KTO's KL estimate)."""

    @property
    def first(self) -> NDArray[np.int64]:
        """(len + 1,) how many branches stand before each tree's; of one tree `branches` tells it at once."""
        return self.trees - np.arange(len(self.trees))

    def branches(self, index: int) -> tuple[int, int]:
        """A tree's branches among those of all trees: the first, and the one after the last."""
        return int(self.trees[index]) - index, int(self.trees[index + 1]) - index - 1

    @property
    def keys(self) -> NDArray[np.uint8]:
        """(branches of all trees, 16) `sequence_key` of each: kept with the tokens, or else made of them."""
        return sequence_keys(self) if self._keys is None else self._keys

    def names(self, index: int) -> tuple[str, ...]:
        """What people call the branches of a tree: chosen and rejected; of a longer list the ranks; of a single
        completion its label; "mismatched" of another row's."""
        first, last = self.branches(index)
        own = (last - first) // (2 if self.mismatched else 1)
        names = ("chosen", "rejected") if own == 2 else tuple(f"rank_{k}" for k in range(1, own + 1))
        if own == 1 and "desirable" in self.columns:
            names = ("desirable" if self.columns["desirable"][first] > 0.5 else "undesirable",)
        elif own == 1:
            names = ("chosen",)
        return names + (tuple(f"mismatched_{name}" for name in names) if self.mismatched else ())

    def blocks(self, most: int = BLOCK) -> Iterator[Trees]:
        """The same trees in parts of at most `most`, so that arithmetic on all of them takes the memory of one part."""
        for start in range(0, len(self), most):
            trees = self.trees[start : start + most + 1]
            segments = self.segments[trees[0] : trees[-1] + 1]
            own = slice(int(trees[0]) - start, int(trees[-1]) - start - len(trees) + 1)
            yield Trees(
                self.ids[start : start + most], self.tokens[segments[0] : segments[-1]], segments - segments[0],
                trees - trees[0], self.scored_from[trees[0] : trees[-1]],
                {name: values[own] for name, values in self.columns.items()}, self.mismatched,
                None if self._keys is None else self._keys[own],
            )  # fmt: skip

    @property
    def parted(self) -> NDArray[np.bool_]:
        """(len,) True for trees with a branch that has turns of its own before what is scored."""
        starts = self.trees[:-1]
        return np.maximum.reduceat(self.scored_from, starts) > 0 if len(starts) else np.zeros(0, dtype=np.bool_)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(len,) tokens of each tree, its prompt once."""
        return np.diff(self.segments[self.trees])

    def longest(self) -> int:
        """Tokens of the longest sequence, prompt and branch together."""
        most = 0
        for block in self.blocks():
            sizes = np.diff(block.segments)
            sizes += np.repeat(sizes[block.trees[:-1]], np.diff(block.trees))  # of prompts it is twice their own
            sizes[block.trees[:-1]] = 0
            most = max(most, int(sizes.max()))
        return most

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
