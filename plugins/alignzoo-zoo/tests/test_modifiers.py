"""A modifier of DPO is the objective that it was taken out of: the same losses and the same gradients."""

from __future__ import annotations

import pytest
import torch
from alignzoo_zoo import MODIFIERS
from cases import BY_NAME, PAIRS, build

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


def test_every_modifier_is_compared():
    assert {name for name, *_ in SAME} == set(BY_MODIFIER)
