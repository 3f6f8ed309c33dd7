"""Exponentials that neither overflow nor lose their gradient: beyond a bound they go on as straight lines."""

from math import exp as _exp

from torch import Tensor

EXPONENT = 20.0
"""e^20 is 5e8: a larger slope would only overflow the norm of the gradient."""


def exp(x: Tensor) -> Tensor:
    """e^x up to x = 20, and its tangent at 20 beyond."""
    return x.clamp(max=EXPONENT).exp() * (1 + (x - EXPONENT).relu())


def expm1(x: Tensor) -> Tensor:
    """e^x - 1 up to x = 20, and its tangent at 20 beyond."""
    return x.clamp(max=EXPONENT).expm1() + _exp(EXPONENT) * (x - EXPONENT).relu()
