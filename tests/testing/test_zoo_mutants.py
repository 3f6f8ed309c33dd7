"""The kit kills a wrong sign, swapped sides and a gradient cut off in every objective of the catalogue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from zoo import OBJECTIVES

from alignzoo.interfaces.loss_inputs import Pair, Ranked, Scored, Unpaired
from alignzoo.interfaces.objective import Objective
from alignzoo.testing import CHECKS, held_constant

CHECK = {check.__name__: check for check in CHECKS}
LEAVES = ("_log_prob", "_log_ratio", "_scalar")
PARTS = (*LEAVES, "_ref_log_prob", "length")


def mutant(name: str, change: Callable[[Any, Callable[[Any], Any]], Any]) -> Objective:
    """The objective with a loss that `change` makes of an example and the good loss."""
    good = OBJECTIVES[name]
    about = {"__doc__": good.__doc__, "__module__": __name__, "loss": lambda self, example: change(
        example, lambda seen: good.loss(self, seen))}  # fmt: skip
    return type("Mutant", (good,), about)()


def swapped(example: Any) -> Any:
    """The completions in the places of each other; columns and labels stay."""
    if isinstance(example, Pair):
        return example.swapped()
    if isinstance(example, Unpaired):
        return replace(example, desirable=~example.desirable)
    one = example.completions
    parts = {part: getattr(one, part) for part in PARTS}
    return Ranked(replace(one, **{part: value.flip(1) for part, value in parts.items() if value is not None}))


def cut(scored: Scored) -> Scored:
    """The completions without a gradient."""
    changes = {part: getattr(scored, part) for part in LEAVES if getattr(scored, part) is not None}
    tokens = scored._tokens and replace(
        scored._tokens, log_prob=scored._tokens.log_prob.detach(),
        _statistics={name: one.detach() for name, one in scored._tokens._statistics.items()},
    )  # fmt: skip
    return replace(scored, _tokens=tokens, **{part: value.detach() for part, value in changes.items()})


def best_cut(values: Tensor) -> Tensor:
    """The values of lists, of which the first has no gradient."""
    return torch.cat([values[:, :1].detach(), values[:, 1:]], 1)


def first_cut(example: Any) -> Any:
    """Without the gradient of the first side: of a list, of the best completion."""
    if isinstance(example, Scored):
        return cut(example)
    if isinstance(example, Ranked):
        one = example.completions
        kept = {part: getattr(one, part) for part in LEAVES if getattr(one, part) is not None}
        changes = {part: best_cut(value) for part, value in kept.items()}
        outputs = {name: best_cut(value) for name, value in one._outputs.items()}
        return replace(example, completions=replace(one, _outputs=outputs, **changes))
    side = next(iter(example.sides()))
    return replace(example, **{side: cut(getattr(example, side))})


SIGNED = [name for name, cls in OBJECTIVES.items() if cls.raises != "nothing"]
SMOOTH = [name for name, cls in OBJECTIVES.items() if not held_constant(cls())]


@pytest.mark.parametrize("name", SIGNED)
def test_a_wrong_sign_is_killed(name):
    with pytest.raises(AssertionError, match="one step down the gradient does not raise"):
        CHECK["descent_raises_what_it_says"](mutant(name, lambda example, loss: -loss(example)))


@pytest.mark.parametrize("name", [name for name in SIGNED if OBJECTIVES[name].data != "chosen"])
def test_swapped_sides_are_killed(name):
    with pytest.raises(AssertionError, match="one step down the gradient does not raise"):
        CHECK["descent_raises_what_it_says"](mutant(name, lambda example, loss: loss(swapped(example))))


@pytest.mark.parametrize("name", SMOOTH)
def test_a_gradient_cut_off_is_killed(name):
    """What is held constant without a word; an objective that declares it has its own tests."""
    with pytest.raises(AssertionError, match="the gradient is not the derivative of the loss"):
        CHECK["gradient_is_right"](mutant(name, lambda example, loss: loss(first_cut(example))))
