"""The conformance kit: what every objective must do, whoever wrote it. Each failure says what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from alignzoo.objective import NotDeclared, Objective, Pair, Scored
from alignzoo.testing.factory import pair, scored

SEED = 20231


def example_for(objective: Objective, rows: int = 6, dtype: torch.dtype = torch.float64, margin: float = 3.0) -> Any:
    """A seeded batch of what the objective declares; log-ratios spread over about +-`margin`."""
    generator = torch.Generator().manual_seed(SEED)

    def some(low: float, high: float) -> Tensor:
        return torch.rand(rows, generator=generator, dtype=torch.float64) * (high - low) + low

    def side() -> tuple[Tensor, Tensor | None, Tensor]:
        ref = some(-60, -20)
        return ref + some(-margin, margin), None if objective.reference == "none" else ref, some(5, 30).round()

    if objective.data == "chosen":
        return scored(*side(), dtype)
    (c, rc, nc), (r, rr, nr) = side(), side()
    return pair(c, r, rc, rr, nc, nr, dtype)


def sides(example: Pair | Scored) -> list[Scored]:
    """The completions of an example."""
    return [example] if isinstance(example, Scored) else [example.chosen, example.rejected]


def taken(example: Pair | Scored, rows: list[int]) -> Any:
    """Some rows of an example, in this order, as an example of their own."""

    def take(one: Scored) -> Scored:
        ref = None if one._ref_log_prob is None else one._ref_log_prob[rows]
        return Scored(one.log_prob.detach()[rows].requires_grad_(), one.length[rows], ref)

    return take(example) if isinstance(example, Scored) else Pair(take(example.chosen), take(example.rejected))


def one_loss_per_example(objective: Objective) -> None:
    """`loss` returns shape (B,)."""
    for rows in (1, 6):
        loss = objective.loss(example_for(objective, rows))
        assert isinstance(loss, Tensor), f"loss returned {type(loss).__name__}; return a tensor"
        assert loss.shape == (rows,), (
            f"loss returned shape {tuple(loss.shape)} for {rows} examples; return one loss an example, not their mean"
        )


def keeps_the_dtype(objective: Objective) -> None:
    """float64 in, float64 out: no constant tensor or cast hides in the formula."""
    loss = objective.loss(example_for(objective))
    assert loss.dtype == torch.float64, (
        f"float64 in, {loss.dtype} out; make constants with the dtype of what you are given"
    )


def finite_at_extremes(objective: Objective) -> None:
    """Finite loss and gradient in float32 at margins of 10,000 nats, of either sign, and of none."""
    for margin in (0.0, 1e-3, 10.0, 1e4):
        example = _apart(objective, margin)
        loss = objective.loss(example)
        gradients = torch.autograd.grad(loss.sum(), [one.log_prob for one in sides(example)], allow_unused=True)
        finite = loss.isfinite().all() and all(g is None or g.isfinite().all() for g in gradients)
        assert finite, f"not finite at a margin of +-{margin:g}; use logsigmoid, log1p, softplus for log and exp"


def _apart(objective: Objective, margin: float) -> Any:
    """Two float32 examples: the margin (of one completion: its log-ratio) is exactly `margin`, then `-margin`."""
    low = torch.tensor([-margin, 0.0]) - 30
    high = low.flip(0)
    ref = None if objective.reference == "none" else [-30.0, -30.0]
    if objective.data == "chosen":
        return scored(low, ref, 12, torch.float32)
    return pair(high, low, ref, ref, 12, 15, torch.float32)


def gradient_is_right(objective: Objective) -> None:
    """torch.autograd.gradcheck in float64."""
    example = example_for(objective)
    one = sides(example)

    def loss(*log_probs: Tensor) -> Tensor:
        parts = [Scored(lp, old.length, old._ref_log_prob) for lp, old in zip(log_probs, one, strict=True)]
        return objective.loss(parts[0] if len(parts) == 1 else Pair(*parts))

    right = torch.autograd.gradcheck(loss, [part.log_prob for part in one], raise_exception=False, atol=1e-5, rtol=1e-3)
    assert right, "the gradient is not the derivative of the loss; look for detach, .data, rounding or a hard switch"


def gradient_reaches_the_policy(objective: Objective) -> None:
    """The loss depends on the policy's log-probs."""
    example = example_for(objective)
    gradients = torch.autograd.grad(
        objective.loss(example).sum(), [one.log_prob for one in sides(example)], allow_unused=True
    )
    moved = any(g is not None and g.abs().sum() > 0 for g in gradients)
    assert moved, "no gradient reaches the policy's log_prob; the loss must depend on it without detach"


def rows_are_independent(objective: Objective) -> None:
    """An example's loss does not depend on its neighbours or its place."""
    example = example_for(objective)
    whole = objective.loss(example).detach()
    for rows in ([5, 0, 3, 1, 4, 2], [2], [4, 1]):
        part = objective.loss(taken(example, rows)).detach()
        assert torch.allclose(part, whole[rows], rtol=1e-12, atol=1e-12), (
            "an example's loss changes with what else is in the batch; micro-batches would change the result"
        )


def input_is_untouched(objective: Objective) -> None:
    """`loss` changes nothing that it is given."""
    example = example_for(objective)
    before = [[tensor.detach().clone() for tensor in _tensors(one)] for one in sides(example)]
    objective.loss(example)
    after = [_tensors(one) for one in sides(example)]
    same = all(torch.equal(a, b) for old, new in zip(before, after, strict=True) for a, b in zip(old, new, strict=True))
    assert same, "loss changed its input; avoid operations that end in an underscore"


def _tensors(one: Scored) -> list[Tensor]:
    return [one.log_prob, one.length] + ([] if one._ref_log_prob is None else [one._ref_log_prob])


def same_twice(objective: Objective) -> None:
    """Two calls give the same loss."""
    first, second = (objective.loss(example_for(objective)).detach() for _ in range(2))
    assert torch.equal(first, second), "two calls gave two losses; an objective draws nothing and keeps nothing"


def declared_needs_are_enough(objective: Objective) -> None:
    """Nothing is read that was not declared."""
    example = example_for(objective)
    try:
        objective.loss(example)
        objective.weight(example)
        objective.reward(sides(example)[0])
    except NotDeclared as error:
        raise AssertionError(str(error)) from None


def declared_needs_are_used(objective: Objective) -> None:
    """A reference that nothing reads costs a forward of every row for nothing."""
    if objective.reference == "none":
        return
    without = [Scored(one.log_prob, one.length) for one in sides(example_for(objective))]
    example = without[0] if objective.data == "chosen" else Pair(*without)
    try:
        objective.loss(example)
        objective.weight(example)
    except NotDeclared:
        return
    raise AssertionError('the reference is declared but never read: write `reference = "none"` in the class')


def weights_are_positive(objective: Objective) -> None:
    """`weight` returns shape (B,), positive, without gradient."""
    example = example_for(objective)
    weight = objective.weight(example)
    assert weight.shape == (6,), f"weight returned shape {tuple(weight.shape)}; return one weight an example"
    assert bool((weight > 0).all()), "a weight is not positive; the step divides by their sum"
    assert not weight.requires_grad, "a weight carries a gradient; detach it"


def documented(objective: Objective) -> None:
    """A docstring, a source, and a description of every field."""
    cls = type(objective)
    assert (cls.__doc__ or "").strip(), "no docstring; say in a sentence what the objective is for"
    assert cls.source, "no source; say where it was published: authors, year, arXiv id, equation"
    assert cls.equation, "no equation; write the loss of one example in plain text"
    bare = [name for name, info in cls.model_fields.items() if not info.description]
    assert not bare, f"no description of {', '.join(bare)}; use Field(default, description=...)"


CHECKS: tuple[Callable[[Objective], None], ...] = (
    one_loss_per_example, keeps_the_dtype, finite_at_extremes, gradient_is_right, gradient_reaches_the_policy,
    rows_are_independent, input_is_untouched, same_twice, declared_needs_are_enough, declared_needs_are_used,
    weights_are_positive, documented,
)  # fmt: skip


def run_checks(objective: Objective) -> dict[str, str]:
    """Every check's name with what is wrong, or "" where all is well."""
    results = {}
    for check in CHECKS:
        try:
            check(objective)
            results[check.__name__] = ""
        except Exception as error:  # a broken objective may fail in its own way; the kit reports it
            text = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            results[check.__name__] = text.splitlines()[0] if text else type(error).__name__
    return results


class ObjectiveTests:
    """A pytest mixin: subclass it with `objective = Mine(...)`, and every check is a test."""

    objective: ClassVar[Objective]


def _as_test(check: Callable[[Objective], None]) -> Callable[[Any], None]:
    def test(self: Any) -> None:
        check(self.objective)

    test.__doc__ = check.__doc__
    return test


for _check in CHECKS:
    setattr(ObjectiveTests, f"test_{_check.__name__}", _as_test(_check))
