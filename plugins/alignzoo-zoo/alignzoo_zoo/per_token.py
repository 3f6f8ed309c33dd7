"""Means over the tokens of completions."""

from torch import Tensor

from alignzoo import Scored


def per_token(scored: Scored) -> Tensor:
    """Return the mean log-prob of each completion's tokens, of any shape."""
    return scored.log_prob / scored.length
