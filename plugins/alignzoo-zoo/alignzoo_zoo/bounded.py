"""Exponentials that are linear beyond a bound, so that they do not overflow and keep a gradient."""

from math import exp as _exp

from torch import Tensor

EXPONENT = 20.0
"""The bound: e^20 is 5e8, and a larger slope would overflow the norm of the gradient."""


def exp(x: Tensor) -> Tensor:
    """Return e^x up to x = 20, and its tangent at 20 beyond."""
    return x.clamp(max=EXPONENT).exp() * (1 + (x - EXPONENT).relu())


def expm1(x: Tensor) -> Tensor:
    """Return e^x - 1 up to x = 20, and its tangent at 20 beyond."""
    return x.clamp(max=EXPONENT).expm1() + _exp(EXPONENT) * (x - EXPONENT).relu()
