"""The first step of a policy that is its reference: what one ulp a token moves is no more than one ulp."""

from __future__ import annotations

import pytest
from steps import build, difference, every, take, tiny_llama
from ulps import move_by_one_ulp

NAMES = ["dpo", "aot", "aot_unpaired", "beta_dpo", "alpha_dpo", "dpop", "lipo_lambda", "kto", "pl_dpo", "f_dpo"]


@pytest.mark.parametrize("name", NAMES)
def test_the_first_step_does_not_depend_on_the_last_bit_of_a_log_prob(tmp_path, monkeypatch, name):
    found = []
    for seed in (0, 1, 2):
        with monkeypatch.context() as patch:
            engine = build(every()[name], tmp_path)
            engine.scorer.model.load_state_dict(tiny_llama(seed=1).state_dict())  # the reference's
            if seed:
                move_by_one_ulp(patch, seed)
            found.append(take(engine))
    exact, *others = found
    assert max(float(gradient.abs().max()) for gradient in exact.gradients[0].values()) > 1e-6
    if name not in ("kto", "alpha_dpo"):  # no row has two completions; the reward is a log-prob
        assert exact.metrics[0]["accuracy"] == 0.5
    for other in others:
        assert other.metrics[0] == pytest.approx(exact.metrics[0], rel=1e-4, abs=1e-4)
        assert difference(other.gradients[0], exact.gradients[0]) < 1e-3
