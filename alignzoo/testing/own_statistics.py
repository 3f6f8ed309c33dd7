"""Check of the statistics of token distributions that are methods of an objective."""

from __future__ import annotations

import torch
from torch import Tensor

from alignzoo.interfaces.objective import Objective
from alignzoo.interfaces.requirements import OWN, TokenStatistic
from alignzoo.testing.synthetic_batch import SEED

TOKENS, VOCABULARY = 5, 7
SCALES = (1.0, 30.0, 1e4)
"""Standard deviations of logits. At the last one all other tokens have a probability of 0 in float32."""


def own_statistics_are_right(objective: Objective) -> None:
    """Check that an objective's own statistics are per token, finite and differentiable.

    Each is one number a token, of the token's distributions alone. The gradient is checked in float64 on logits, unless
    `stop_gradient` is declared.
    """
    live = objective.reference in ("live", "moving")
    held = any(one.stop_gradient for one in objective.components)
    for full, statistic in objective.own_statistics.items():
        name = full.partition(OWN)[0]
        log_pi, log_ref = _log_probs(1.0, live)
        found = statistic(log_pi, log_ref)
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        assert shape == (TOKENS,), f"`{name}` returned {shape} for {TOKENS} tokens; return one number a token, (n,)"
        part = statistic(log_pi[1:3], None if log_ref is None else log_ref[1:3])
        assert torch.allclose(part, found[1:3], rtol=1e-12), (
            f"`{name}` of a token depends on other tokens, which are not always in the same slice; reduce over the "
            "vocabulary alone"
        )
        for scale in SCALES:
            _finite(name, statistic, *_log_probs(scale, live, torch.float32))
        if not held:
            _differentiable(name, statistic, log_pi, log_ref)


def _log_probs(scale: float, live: bool, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor | None]:
    """Return log-probs of policy and reference whose logits have a standard deviation."""
    both = torch.randn(2, TOKENS, VOCABULARY, dtype=torch.float64, generator=torch.Generator().manual_seed(SEED))
    own, ref = (scale * both).to(dtype).log_softmax(-1)
    return own, ref if live else None


def _finite(name: str, statistic: TokenStatistic, log_pi: Tensor, log_ref: Tensor | None) -> None:
    leaf = log_pi.requires_grad_()
    found = statistic(leaf, log_ref)
    gradient = torch.autograd.grad(found.sum(), leaf, allow_unused=True)[0] if found.requires_grad else None
    finite = bool(found.isfinite().all()) and (gradient is None or bool(gradient.isfinite().all()))
    assert finite, (
        f"`{name}` or its gradient is not finite where probabilities are 0; stay with logs, such as logaddexp"
    )


def _differentiable(name: str, statistic: TokenStatistic, log_pi: Tensor, log_ref: Tensor | None) -> None:
    leaf = log_pi.detach().requires_grad_()

    def value(logits: Tensor) -> Tensor:
        return statistic(logits.log_softmax(1), log_ref)

    right = torch.autograd.gradcheck(value, [leaf], raise_exception=False, atol=1e-6, rtol=1e-4)
    assert right, (
        f"the gradient of `{name}` is not its derivative; look for detach, or declare the term that is held constant: "
        '`stop_gradient = "..."` in the class'
    )
