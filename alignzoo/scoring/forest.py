"""Trees laid out in rows, with one integer per token that defines the attention mask.

Trees stand in a row in depth-first order: the prompt, then each branch, then the next tree. Each token carries its
`position` (depth in its own sequence) and `end` (the slot in the row at which its subtree ends). A token q may attend
to k exactly when

    k <= q < end[k]

which is causality, prompt sharing (completions see the prompt and never each other), packing of several trees in one
row, and padding (a padded slot ends right after itself) at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alignzoo.core.packing import pack_rows
from alignzoo.data.trees import Branch, Tree

PLAIN = "plain"
PADDED = "padded"
PACKED = "packed"
LAYOUTS = (PACKED, PADDED, PLAIN)
"""The fastest first: all trees in one row; rows as wide as the longest tree; one sequence a row."""


@dataclass(frozen=True, slots=True)
class Forest:
    """One micro-batch, ready for a model: R rows of W slots.

    It has S scored sequences with N scored tokens in all. Sequences stand in the order of the trees and, within a tree,
    of its branches.
    """

    tokens: Tensor
    """(R, W) int64; padding is token 0 and visible to itself alone."""
    position: Tensor
    """(R, W) int64: depth of the token in its own sequence."""
    end: Tensor
    """(R, W) int64: slot in the row at which the token's subtree ends."""
    slot: Tensor
    """(N,) int64: index into the R * W flat slots of the token that predicts each scored token."""
    target: Tensor
    """(N,) int64: the scored token itself."""
    offsets: Tensor
    """(S + 1,) int64: sequence s has the scored tokens offsets[s] up to offsets[s + 1]."""
    last: Tensor
    """(S,) int64: index into the flat slots of each sequence's last token, which a reward model's head reads."""
    layout: str = PADDED

    @property
    def slots(self) -> int:
        """Token slots that the model computes, padding included."""
        return self.tokens.numel()

    def to(self, device: torch.device | str) -> Forest:
        """Return the forest on another device."""
        names = ("tokens", "position", "end", "slot", "target", "offsets", "last")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})

    def visible(self, window: int | None = None) -> Tensor:
        """Return (R, W, W) bool: [r, q, k] is True where q may attend to k.

        If `window` is given, q attends to k within as many tokens.
        """
        slot = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        seen = (slot <= slot[:, None]) & (slot[:, None] < self.end[:, None, :])
        if window is not None:
            seen &= self.position[:, :, None] - self.position[:, None, :] < window
        return seen

    def valid(self) -> Tensor:
        """Return (R, W) bool: False on padding.

        Plain layout only, where a token's slot is its position.
        """
        return self.position == torch.arange(self.tokens.shape[1], device=self.tokens.device)

    def paths(self) -> list[NDArray[np.int64]]:
        """Return each sequence's flat slots, from the first token to the last."""
        end, width = self.end.cpu().numpy(), self.tokens.shape[1]
        slot, found = np.arange(width), []
        for row, last in (divmod(flat, width) for flat in self.last.tolist()):
            found.append(row * width + np.flatnonzero((slot <= last) & (last < end[row])))
        return found

    def only(self, sequences: NDArray[np.int64]) -> Forest:
        """Return a forest of some sequences, given by increasing indices.

        Slots that are invisible to all of them are left out.
        """
        paths, offsets, (rows, width) = self.paths(), self.offsets.tolist(), self.tokens.shape
        seen = np.zeros(rows * width, dtype=bool)
        seen[np.concatenate([paths[s] for s in sequences])] = True
        seen = seen.reshape(rows, width)[kept := np.flatnonzero(seen.reshape(rows, width).any(1))]
        before = np.pad(seen.cumsum(1), ((0, 0), (1, 0)))  # (rows, W + 1) slots left before each old one
        wide = int(before[:, -1].max())
        full = np.arange(wide) < before[:, -1:]
        end = np.broadcast_to(np.arange(1, wide + 1), full.shape).copy()
        end[full] = np.take_along_axis(before, self.end.cpu().numpy()[kept], 1)[seen]
        moved = np.zeros((rows, width), dtype=np.int64)
        moved[kept] = np.arange(len(kept))[:, None] * wide + before[:, :-1]
        inside = np.concatenate([np.arange(offsets[s], offsets[s + 1]) for s in sequences])
        device = self.tokens.device

        def left(values: Tensor) -> Tensor:
            out = torch.zeros(full.shape, dtype=values.dtype, device=device)
            out[torch.from_numpy(full).to(device)] = values[torch.from_numpy(kept).to(device)][
                torch.from_numpy(seen).to(device)
            ]
            return out

        place, tokens = torch.from_numpy(moved.ravel()).to(device), torch.from_numpy(inside).to(device)
        lengths = np.diff(offsets)[sequences]
        return Forest(
            left(self.tokens), left(self.position), torch.from_numpy(end).to(device), place[self.slot[tokens]],
            self.target[tokens], torch.from_numpy(np.concatenate([[0], lengths.cumsum()])).to(device),
            place[self.last[torch.from_numpy(sequences).to(device)]], self.layout,
        )  # fmt: skip

    def mask(self, dtype: torch.dtype, window: int | None = None) -> Tensor:
        """Return the additive mask (R, 1, W, W): 0 where q may attend to k.

        Elsewhere it is the lowest number of `dtype`.
        """
        seen = self.visible(window)
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(
            ~seen, torch.finfo(dtype).min
        )[:, None]  # fmt: skip


def lay_out(trees: Sequence[Tree], layout: str = PADDED) -> Forest:
    """Lay trees out in rows.

    Packed: one row without padding. Padded: rows as wide as the longest tree. Plain: one sequence per row, with the
    prompt repeated.
    """
    if layout == PLAIN:
        singles = [Tree(tree.id, tree.prompt, (branch,)) for tree in trees for branch in tree.branches]
        rows = [[i] for i in range(len(singles))]
        return _lay(singles, rows, PLAIN)
    rows = [list(range(len(trees)))] if layout == PACKED else pack_rows([tree.slots for tree in trees])[0]
    return _lay(trees, rows, layout)


def _lay(trees: Sequence[Tree], rows: Sequence[Sequence[int]], layout: str) -> Forest:
    width = max(sum(trees[i].slots for i in row) for row in rows)
    tokens = np.zeros((len(rows), width), dtype=np.int64)
    position = np.zeros_like(tokens)
    end = np.broadcast_to(np.arange(1, width + 1), tokens.shape).copy()
    slots: dict[tuple[int, int], np.ndarray] = {}
    last: dict[tuple[int, int], int] = {}
    for r, row in enumerate(rows):
        at = 0
        for i in row:
            tree = trees[i]
            start, depth, stop = at, len(tree.prompt), at + tree.slots
            at += depth
            tokens[r, start:at] = tree.prompt
            position[r, start:at] = np.arange(depth)
            end[r, start:at] = stop
            for b, branch in enumerate(tree.branches):
                n = len(branch.tokens)
                tokens[r, at : at + n] = branch.tokens
                position[r, at : at + n] = np.arange(depth, depth + n)
                end[r, at : at + n] = at + n
                before = np.arange(at - 1, at + n - 1)
                before[0] = start + depth - 1  # the first token of every branch follows the prompt's last
                slots[i, b] = r * width + branch.select(before)
                at += n
                last[i, b] = r * width + at - 1
    order = [(i, b) for i, tree in enumerate(trees) for b in range(len(tree.branches))]
    targets = [trees[i].branches[b].select(trees[i].branches[b].tokens) for i, b in order]
    offsets = np.zeros(len(order) + 1, dtype=np.int64)
    np.cumsum([len(target) for target in targets], out=offsets[1:])
    return Forest(
        torch.from_numpy(tokens), torch.from_numpy(position), torch.from_numpy(end),
        torch.from_numpy(np.concatenate([slots[key] for key in order])),
        torch.from_numpy(np.concatenate(targets).astype(np.int64)), torch.from_numpy(offsets),
        torch.tensor([last[key] for key in order]), layout,
    )  # fmt: skip


def sequences(trees: Iterable[Tree]) -> Iterable[tuple[Tree, Branch]]:
    """Iterate over the scored sequences, in the order of a forest of these trees."""
    return ((tree, branch) for tree in trees for branch in tree.branches)
