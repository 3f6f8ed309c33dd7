"""A mixture of experts whose config asks for an auxiliary loss is a sentence, until a key turns the loss off."""

from __future__ import annotations

import pytest
from architectures import FOREST, build

from alignzoo.core.errors import UserError
from alignzoo.training.preflight import no_router_loss


@pytest.mark.parametrize("asked", [True, False])
def test_a_router_loss_that_is_asked_for_is_a_sentence(asked):
    config = FOREST["mixtral"]()
    config.output_router_logits, config.router_aux_loss_coef = asked, 0.02
    model = build(config)
    no_router_loss(model, ignore=True)
    if not asked:
        no_router_loss(model, ignore=False)
        return
    with pytest.raises(UserError, match=r"output_router_logits: true, router_aux_loss_coef: 0.02") as error:
        no_router_loss(model, ignore=False)
    assert "train.ignore_router_loss=true" in str(error.value)


def test_a_coefficient_of_0_asks_for_nothing():
    config = FOREST["mixtral"]()
    config.output_router_logits, config.router_aux_loss_coef = True, 0.0
    no_router_loss(build(config), ignore=False)
