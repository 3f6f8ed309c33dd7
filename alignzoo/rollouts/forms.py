"""Checks of a rollout's arrays, so that foreign or altered ones are not trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignzoo.core.arrays import offsets_fit


@dataclass(frozen=True)
class Form:
    """Type, shape and range of an array."""

    dtype: Any
    shape: tuple[int, ...]
    """-1 stands for any size."""
    most: int | None = None
    """Values lie in [0, most]; None: any."""
    infinite: bool = True
    """Values may be infinite."""

    def fits(self, array: NDArray[Any]) -> bool:
        """Return True for an array of this form."""
        sizes = zip(array.shape, self.shape, strict=True) if array.ndim == len(self.shape) else [(0, 1)]
        if array.dtype != self.dtype or any(size != wanted and wanted >= 0 for size, wanted in sizes):
            return False
        if not self.infinite and np.isinf(array).any():
            return False
        return self.most is None or not array.size or bool(array.min() >= 0 and array.max() <= self.most)


def draws_fit(
    arrays: Mapping[str, NDArray[Any]], draws: Mapping[str, int], max_new_tokens: int, vocabulary: int
) -> bool:
    """Return True for arrays of draws.

    Args:
        arrays: The arrays.
        draws: Prefix of the arrays' names -> number of draws.
        max_new_tokens: Limit of a draw's tokens.
        vocabulary: Number of token ids.
    """
    forms: dict[str, Form] = {}
    for prefix, count in draws.items():
        forms |= {
            f"{prefix}tokens": Form(np.int32, (-1,), vocabulary - 1), f"{prefix}cuts": Form(np.int64, (count + 1,)),
            f"{prefix}finished": Form(np.uint8, (count,), 1), f"{prefix}log_prob": Form(np.float64, (count,)),
        }  # fmt: skip
    if not all_fit(arrays, forms):
        return False
    cuts = {prefix: arrays[f"{prefix}cuts"] for prefix in draws}
    return all(
        offsets_fit(cut, arrays[f"{prefix}tokens"].size)
        and bool(((np.diff(cut) >= 1) & (np.diff(cut) <= max_new_tokens)).all())
        for prefix, cut in cuts.items()
    )


def all_fit(arrays: Mapping[str, NDArray[Any]], forms: Mapping[str, Form]) -> bool:
    """Return True if the arrays are those that `forms` names, each of its form."""
    return arrays.keys() == forms.keys() and all(form.fits(arrays[name]) for name, form in forms.items())
