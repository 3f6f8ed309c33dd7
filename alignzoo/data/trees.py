"""Token trees: a prompt with completions as branches, in flat arrays for many rows.

The policy is scored on prompt + branch. Only the tokens in the branch's spans are scored. All others are context: turns
of the user and of tools, and turns that differ between the two dialogues of some HH rows.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from alignzoo.core.arrays import concat_ranges, offsets_of

TokenIds = NDArray[np.int32]
Spans = NDArray[np.int32]
"""(n, 2) int32: start and stop of each span, in positions of the branch's tokens.

Spans are not empty and in order, with a gap between any two, and the last one ends with the branch."""
T = TypeVar("T", bound=np.generic)
BLOCK = 16_384
"""Number of trees processed at once to limit memory."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One completion. The tokens in `spans` are scored, EOS included: by default all of them."""

    tokens: TokenIds
    spans: Spans = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.spans is None:
            object.__setattr__(self, "spans", np.array([[0, len(self.tokens)]], dtype=np.int32))

    @classmethod
    def scored_from(cls, tokens: TokenIds, start: int) -> Branch:
        """Create a branch that is scored from `start` to its end."""
        return cls(tokens, np.array([[start, len(tokens)]], dtype=np.int32))

    @classmethod
    def of(cls, tokens: Sequence[int] | TokenIds, *spans: tuple[int, int]) -> Branch:
        """Create a branch from a list of ids and (start, stop) of each span."""
        return cls(np.asarray(tokens, dtype=np.int32), np.array(spans, dtype=np.int32).reshape(-1, 2))

    @property
    def scored(self) -> int:
        """Number of scored tokens."""
        return sum(stop - start for start, stop in self.spans.tolist())

    @property
    def context(self) -> int:
        """Number of tokens before the first scored one."""
        return int(self.spans[0, 0])

    def select(self, values: NDArray[T]) -> NDArray[T]:
        """Return the values of the scored tokens, given one value for each token.

        A single span gives a view.
        """
        parts = [values[start:stop] for start, stop in self.spans.tolist()] or [values[:0]]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def part(self, start: int, stop: int) -> Branch:
        """Return the branch of `tokens[start:stop]`, with its part of each span.

        It ends at the last scored token.
        """
        inside = (self.spans.clip(start, stop) - start).astype(np.int32)
        spans = inside[inside[:, 0] < inside[:, 1]]
        return Branch(self.tokens[start : start + int(spans[-1, 1]) if len(spans) else start], spans)


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
        """Number of tokens with the prompt counted once: the slots in a packed layout."""
        return len(self.prompt) + sum(len(branch.tokens) for branch in self.branches)


def sequence_key(prompt: TokenIds, branch: Branch) -> bytes:
    """Return 16 bytes that identify a scored sequence: its token ids and its scored positions."""
    digest = blake2b(_positions(len(prompt), len(branch.tokens), branch.spans.tolist()), digest_size=16)
    digest.update(np.ascontiguousarray(prompt, dtype=np.int32).tobytes())
    digest.update(np.ascontiguousarray(branch.tokens, dtype=np.int32).tobytes())
    return digest.digest()


def _positions(depth: int, size: int, spans: Sequence[Sequence[int]]) -> bytes:
    """Return the scored positions of a sequence as int64 numbers.

    One span to the end is its start, which is positive. Others are minus their number, and start and stop of each.
    """
    if len(spans) == 1 and spans[0][1] == size:
        return (depth + spans[0][0]).to_bytes(8, sys.byteorder)
    return np.array([-len(spans), *(depth + at for span in spans for at in span)], dtype=np.int64).tobytes()


def sequence_keys(trees: Trees) -> NDArray[np.uint8]:
    """Return the `sequence_key` of every branch, (branches, 16).

    The order is that of trees and branches.
    """
    raw = np.ascontiguousarray(trees.tokens, dtype=np.int32).view(np.uint8).data
    cuts = (4 * trees.segments).tolist()
    segments, spans, span_cuts = trees.trees.tolist(), trees.spans.tolist(), trees.span_cuts.tolist()
    keys = bytearray()
    for first, last in zip(segments, segments[1:], strict=False):
        prompt = raw[cuts[first] : cuts[first + 1]]
        depth = len(prompt) // 4
        for s in range(first + 1, last):
            own = raw[cuts[s] : cuts[s + 1]]
            positions = _positions(depth, len(own) // 4, spans[span_cuts[s] : span_cuts[s + 1]])
            digest = blake2b(positions, digest_size=16)
            digest.update(prompt)
            digest.update(own)
            keys += digest.digest()
    return np.frombuffer(bytes(keys), np.uint8).reshape(-1, 16)


class Trees(Sequence[Tree]):
    """Sequence of trees in five flat arrays.

    Indexing and iterating create `Tree` views without copying.

    Segment s is `tokens[segments[s]:segments[s + 1]]`. Tree t has the segments `trees[t]` to `trees[t + 1]`: its prompt
    and then its branches. Segment s has the spans `spans[span_cuts[s]:span_cuts[s + 1]]`: a prompt has none.
    """

    def __init__(
        self, ids: Sequence[str], tokens: TokenIds, segments: NDArray[np.int64], trees: NDArray[np.int64],
        spans: Spans, span_cuts: NDArray[np.int64], columns: Mapping[str, NDArray[np.float32]] | None = None,
        mismatched: bool = False, keys: NDArray[np.uint8] | None = None,
    ) -> None:  # fmt: skip
        self.ids, self.tokens, self.segments, self.trees = ids, tokens, segments, trees
        self.spans, self.span_cuts, self._keys = spans, span_cuts, keys
        self.columns = dict(columns or {})
        """Numbers from the data: name -> one value for each branch of each tree, nan if absent."""
        self.mismatched = mismatched
        """True if the second half of every tree's branches are completions of other rows (KTO's KL estimate)."""

    @property
    def first(self) -> NDArray[np.int64]:
        """Index of each tree's first branch among all branches, (len + 1,).

        See `branches` for one tree.
        """
        return self.trees - np.arange(len(self.trees))

    def branches(self, index: int) -> tuple[int, int]:
        """Return the range (first, end) of a tree's branches among all branches."""
        return int(self.trees[index]) - index, int(self.trees[index + 1]) - index - 1

    @property
    def keys(self) -> NDArray[np.uint8]:
        """The `sequence_key` of each branch, (branches of all trees, 16).

        It is stored with the tokens, or computed from them.
        """
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
        """Yield parts of at most `max_trees` trees, to limit the memory of arithmetic on all."""
        for start in range(0, len(self), max_trees):
            trees = self.trees[start : start + max_trees + 1]
            segments = self.segments[trees[0] : trees[-1] + 1]
            own = slice(int(trees[0]) - start, int(trees[-1]) - start - len(trees) + 1)
            spans = self.span_cuts[trees[0] : trees[-1] + 1]
            yield Trees(
                self.ids[start : start + max_trees], self.tokens[segments[0] : segments[-1]], segments - segments[0],
                trees - trees[0], self.spans[spans[0] : spans[-1]], spans - spans[0],
                {name: values[own] for name, values in self.columns.items()}, self.mismatched,
                None if self._keys is None else self._keys[own],
            )  # fmt: skip

    def subset(self, rows: NDArray[np.int64]) -> Trees:
        """Return a copy of some trees, in this order."""
        picked = concat_ranges(self.trees[:-1][rows], np.diff(self.trees)[rows])
        sizes, spans = np.diff(self.segments)[picked], np.diff(self.span_cuts)[picked]
        own = concat_ranges(self.first[:-1][rows], np.diff(self.first)[rows])

        return Trees(
            [self.ids[row] for row in rows.tolist()], self.tokens[concat_ranges(self.segments[:-1][picked], sizes)],
            offsets_of(sizes), offsets_of(np.diff(self.trees)[rows]),
            self.spans[concat_ranges(self.span_cuts[:-1][picked], spans)], offsets_of(spans),
            {name: values[own] for name, values in self.columns.items()}, self.mismatched,
            None if self._keys is None else self._keys[own],
        )  # fmt: skip

    @property
    def answered(self) -> bool:
        """True if every tree has a completion."""
        return bool((np.diff(self.trees) > 1).all())

    @property
    def parted(self) -> NDArray[np.bool_]:
        """(len,) True for trees with a branch that has context before its scored tokens."""
        late = np.zeros(len(self.segments) - 1, dtype=np.bool_)
        branches = np.flatnonzero(np.diff(self.span_cuts))
        late[branches] = self.spans[self.span_cuts[branches], 0] > 0
        return np.logical_or.reduceat(late, self.trees[:-1]) if len(self) else late

    @property
    def scored(self) -> NDArray[np.int64]:
        """(segments,) number of scored tokens of each segment, 0 for prompts."""
        before = np.concatenate([[0], np.cumsum(self.spans[:, 1] - self.spans[:, 0], dtype=np.int64)])
        return np.diff(before[self.span_cuts])

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(len,) number of tokens of each tree, with its prompt counted once."""
        return np.diff(self.segments[self.trees])

    @property
    def prompt_lengths(self) -> NDArray[np.int64]:
        """(len,) number of tokens of each tree's prompt."""
        return np.diff(self.segments)[self.trees[:-1]]

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
        """Copy trees into flat arrays.

        Raises:
            ValueError: The spans of a branch are not as `Spans` has them.
        """
        ids: list[str] = []
        parts: list[TokenIds] = []
        spans: list[Spans] = [np.zeros((0, 2), dtype=np.int32)]
        counts: list[int] = []
        trees = [0]
        for tree in items:
            ids.append(tree.id)
            parts.append(np.asarray(tree.prompt, dtype=np.int32))
            parts.extend(np.asarray(branch.tokens, dtype=np.int32) for branch in tree.branches)
            spans.extend(branch.spans for branch in tree.branches)
            counts.extend([0, *(len(branch.spans) for branch in tree.branches)])
            trees.append(len(parts))
        segments = np.zeros(len(parts) + 1, dtype=np.int64)
        np.cumsum([len(part) for part in parts], out=segments[1:])
        span_cuts = np.zeros_like(segments)
        np.cumsum(counts, out=span_cuts[1:])
        tokens = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)
        flat = np.concatenate(spans).astype(np.int32, copy=False)
        built = cls(ids, tokens, segments, np.asarray(trees, dtype=np.int64), flat, span_cuts, columns, mismatched)
        if not built.spans_fit():
            raise ValueError("the spans of a branch are not in order, not apart, empty, or do not end with the branch")
        return built

    def spans_fit(self) -> bool:
        """Return True if the spans of every branch are as `Spans` has them, and no prompt has one."""
        sizes, counts = np.diff(self.segments), np.diff(self.span_cuts)
        prompts, last = self.trees[:-1], self.span_cuts[1:] - 1
        branches = np.ones(len(sizes), dtype=np.bool_)
        branches[prompts] = False
        before = np.concatenate([[-1], self.spans[:-1, 1]])[: len(self.spans)]
        before[self.span_cuts[:-1][branches & (counts > 0)]] = -1  # the first span of a branch may start at 0
        ends = (counts[branches] > 0).all() and (self.spans[last[branches], 1] == sizes[branches]).all()
        apart = (self.spans[:, 0] > before).all() and (self.spans[:, 0] < self.spans[:, 1]).all()
        return bool(ends and apart and not counts[prompts].any())

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
        at = self.span_cuts[first + 1 : last + 1].tolist()
        spans = [self.spans[a:b] for a, b in zip(at, at[1:], strict=False)]
        return Tree(self.ids[t], pieces[0], tuple(map(Branch, pieces[1:], spans)))

    def __iter__(self) -> Iterator[Tree]:
        return (self[i] for i in range(len(self)))
