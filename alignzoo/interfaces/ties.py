"""Ties between computed values: two sums that differ by rounding alone count as equal.

A log-prob is a sum over tokens whose last bits depend on the processor, the batch and the number of processes. Code
that sorts, counts or compares such values uses this module, so that a tie counts one half on every machine. Scores from
the data or from a judge are exact: they tie only if they are equal (a tolerance of 0).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

NATS = 1e-5
ULPS = 8


def tolerance(*sums: Tensor) -> Tensor:
    """Return the rounding error of values computed from `sums`.

    The error is 1e-5 plus 8 float32 ulps of the largest sum. The sums and the result have the same shape; the
    result has no gradient.
    """
    import torch

    largest = torch.stack([one.detach().abs() for one in sums]).amax(0)
    wide = largest.float().clamp(max=1e30)
    return (NATS + ULPS * (wide.nextafter(torch.full_like(wide, torch.inf)) - wide)).to(largest)


def tie_groups(values: Tensor, tolerance: Tensor | float = 0.0) -> Tensor:
    """Return dense ranks along the last dimension: int64, 0 for the smallest; equal for ties.

    Two neighbors in sorted order have different ranks if they differ by more than the larger of their tolerances.
    """
    import torch

    values = values.detach()
    order = values.argsort(stable=True)
    ordered = values.gather(-1, order)
    allowed = torch.as_tensor(tolerance).to(values).expand(values.shape).gather(-1, order)
    cut = ordered[..., 1:] - ordered[..., :-1] > allowed[..., 1:].maximum(allowed[..., :-1])
    group = torch.cat([torch.zeros_like(order[..., :1]), cut.long().cumsum(-1)], -1)
    return torch.empty_like(group).scatter_(-1, order, group)


def tie_means(values: Tensor, groups: Tensor) -> Tensor:
    """Return the mean over each value's group along the last dimension, shaped as `values`."""
    import torch

    zeros = torch.zeros_like(values)
    sums, counts = zeros.scatter_add(-1, groups, values), zeros.scatter_add(-1, groups, torch.ones_like(values))
    return sums.gather(-1, groups) / counts.gather(-1, groups)


def by_rank(groups: Tensor, values: Tensor) -> Tensor:
    """Return the value of each element's rank; ties share the mean over their ranks.

    `values` is in order of rank. Both tensors have shape (..., n). `by_rank(groups, torch.arange(n))` is the mean rank.
    """
    import torch

    order = groups.argsort(stable=True)
    shared = tie_means(values.expand(groups.shape), groups.gather(-1, order))
    return torch.empty_like(shared).scatter(-1, order, shared)


def wins(better: Tensor, worse: Tensor, tolerance: Tensor | float = 0.0) -> Tensor:
    """Return 1 where `better` exceeds `worse`, 0.5 for a tie within the tolerance, else 0."""
    apart = (better - worse).detach()
    return 0.5 * ((apart > tolerance).double() + (apart >= -tolerance).double())


def hinge(values: Tensor, tolerance: Tensor | float = 0.0) -> Tensor:
    """Return max(0, x), with slope 1/2 within the tolerance of 0.

    Rounding would decide the slope there.
    """
    at_bend = values.detach().abs() <= tolerance
    return (values / 2).where(at_bend, values.relu())
