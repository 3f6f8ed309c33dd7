"""A modifier of DPO is the objective that it was taken out of: the same losses and the same gradients."""

from __future__ import annotations

import pytest
import torch
from alignzoo_zoo import MODIFIERS
from cases import BY_NAME, PAIRS, build
from notation import log_sigmoid

from alignzoo.objectives.builtin.dpo import DPO
from alignzoo.objectives.composition import Modified

BY_MODIFIER = {cls.name: cls for cls in MODIFIERS}
SAME = [
    ("length_desensitization", {"alpha": 0.3}, "ld_dpo", {"alpha": 0.3}),
    ("length_desensitization", {"alpha": 0.0}, "ld_dpo", {"alpha": 0.0}),
    ("length_downsampling", {}, "sampo", {}),
    *[
        ("f_divergence", {"divergence": name}, "f_dpo", {"divergence": name})
        for name in ("reverse_kl", "forward_kl", "js", "alpha")
    ],
    ("wpo_weighting", {}, "wpo", {}),
    ("humanline", {"low": -100.0, "high": 100.0}, "d2po", {"gamma": 1.0}),
    ("wpo_weighting", {"clamp": False}, "wpo", {"clamp": False}),
]


@pytest.mark.parametrize(("name", "fields", "whole", "others"), SAME)
@pytest.mark.parametrize("rows", PAIRS.values(), ids=PAIRS)
def test_dpo_with_it_is_the_objective(name, fields, whole, others, rows):
    def measured(objective):
        example = build(BY_NAME[whole], rows)
        sides = (example.chosen, example.rejected)
        leaves = [side.tokens.log_prob if BY_NAME[whole].tokens else side.log_prob for side in sides]
        loss = objective.loss(example)
        return loss, torch.cat([grad.flatten() for grad in torch.autograd.grad(loss.sum(), leaves)])

    modified = Modified(inner=DPO(beta=0.2), modifiers=(BY_MODIFIER[name](**fields),))
    for one, other in zip(measured(modified), measured(BY_NAME[whole](beta=0.2, **others)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rows", PAIRS.values(), ids=PAIRS)
def test_humanline_holds_each_tokens_log_ratio_within_its_bounds(rows):
    """As DPO of completions whose tokens were there; a token outside has no gradient."""
    low, high = -0.45, 0.75
    example = build(BY_NAME["d2po"], rows)
    leaf = example.chosen.tokens.log_prob
    loss = Modified(inner=DPO(beta=0.2), modifiers=(BY_MODIFIER["humanline"](low=low, high=high),)).loss(example)
    held = [[sum(min(high, max(low, one)) for one in y.ratios) for y in (row.chosen, row.rejected)] for row in rows]
    assert loss.tolist() == pytest.approx([-log_sigmoid(0.2 * (w - x)) for w, x in held], rel=1e-12)
    (slope,) = torch.autograd.grad(loss.sum(), leaf)
    assert (slope != 0).tolist() == [low < one < high for row in rows for one in row.chosen.ratios]


def test_every_modifier_is_compared():
    assert {name for name, *_ in SAME} == set(BY_MODIFIER)
