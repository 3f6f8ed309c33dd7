"""Recording of the top-k choices of a forward, and their repetition in another forward.

At a near tie rounding decides which expert a router takes, and two forwards that are equal up to rounding can then
differ by whole nats. With the choices of one repeated in the other, the difference is rounding or an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

Choice = tuple[Tensor, int]
"""Indices (..., k), and the number of candidates."""


class Choices(TorchFunctionMode):
    """Record every call of topk in `made`. Subclasses change the indices."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Choice] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Handle topk; run all other functions unchanged."""
        found = func(*args, **(kwargs or {}))
        if func not in (torch.topk, Tensor.topk):
            return found
        options = kwargs or {}
        source = args[0] if args else options["input"]
        axis = args[2] if len(args) > 2 else options.get("dim", -1)
        indices = found.indices
        if axis % source.dim() == source.dim() - 1:
            indices = self.chosen(len(self.made), source, indices)
            if indices is not found.indices:
                found = torch.return_types.topk((source.gather(-1, indices), indices))
        self.made.append((indices, source.shape[-1]))
        return found

    def chosen(self, call: int, source: Tensor, indices: Tensor) -> Tensor:
        """Return the indices to use in place of those found."""
        return indices


class Repeated(Choices):
    """Repeat the choices of a forward of the same shapes."""

    def __init__(self, made: Sequence[Choice]) -> None:
        super().__init__()
        self.before = made

    def chosen(self, call: int, source: Tensor, indices: Tensor) -> Tensor:
        """Return the indices of the same call, where its shape is the same."""
        before = self.before[call][0] if call < len(self.before) else indices
        return before if before.shape == indices.shape else indices


class Spread(Choices):
    """Repeat the choices of one-sequence forwards at the sequences' slots in a forest.

    Only choices of a token among a fixed number (experts) are repeated, not those among the tokens of a sequence.
    """

    def __init__(self, made: Sequence[Sequence[Choice]], places: Sequence[NDArray[np.int64]]) -> None:
        super().__init__()
        self.before, self.places = made, places

    def chosen(self, call: int, source: Tensor, indices: Tensor) -> Tensor:
        """Return the indices of the same call in each sequence's forward."""
        calls = [(made[call], place) for made, place in zip(self.before, self.places, strict=True) if call < len(made)]
        k, flat = indices.shape[-1], None
        for (before, width), place in calls:
            group = before.numel() // (k * len(place))  # a router may choose within several groups for each token
            alike = width == source.shape[-1] and before.shape[-1] == k and group
            if not alike or before.numel() != group * k * len(place) or indices.numel() % (group * k):
                continue
            if flat is None:
                flat = indices.reshape(-1, group * k).clone()
            if place[-1] < len(flat) and flat.shape[1] == group * k:
                flat[torch.from_numpy(place).to(flat.device)] = before.reshape(len(place), -1)
        return indices if flat is None else flat.reshape(indices.shape)
