"""A step is defined on the global batch: neither the token budget nor the layout shows in its gradient.

For every objective that comes with alignzoo or its zoo, and for sums and modified ones. The measure is the largest
difference of any element of the gradient, relative to the largest element of the same parameter's gradient.
"""

from __future__ import annotations

import pytest
import torch
from steps import UNLIMITED, build, difference, every, take

from alignzoo.models.loading import use_gradient_checkpointing

EVERY = every()
CORE = ("sft", "dpo", "kto", "tdpo2", "pl_dpo", "bradley_terry", "bco + beta_dpo", "tr_dpo + sft")
"""One of each kind of data, reference, scope and head: what the fast lane has."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One reference cache for all: the rows are the same."""
    return tmp_path_factory.mktemp("reference")


@pytest.mark.parametrize("name", [pytest.param(one, marks=() if one in CORE else pytest.mark.slow) for one in EVERY])
def test_no_budget_changes_the_gradient(cache, name):
    whole = take(build(EVERY[name], cache, micro_batch_tokens=UNLIMITED))
    assert all(gradient.abs().max() > 0 for gradient in whole.gradients[0].values())
    for budget in (1024, 256):
        part = take(build(EVERY[name], cache, micro_batch_tokens=budget))
        assert difference(part.gradients[0], whole.gradients[0]) <= 1e-5
        assert part.metrics[0] == pytest.approx(whole.metrics[0], rel=1e-4, abs=1e-5)
        assert part.states[0] == pytest.approx(whole.states[0], rel=1e-5, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_what_is_left_of_a_difference_is_rounding(cache, name):
    """In float64 it shrinks with the rounding: an error of the method would stay. Two steps, for the states' sake."""
    options = {"dtype": torch.float64, "batch_size": 12, "max_grad_norm": 1.0}
    whole = take(build(EVERY[name], cache, micro_batch_tokens=UNLIMITED, **options), 2)
    part = take(build(EVERY[name], cache, micro_batch_tokens=1, **options), 2)
    for one, other in zip(part.gradients, whole.gradients, strict=True):
        assert difference(one, other) <= 1e-10
    assert part.states == [pytest.approx(state, rel=1e-12) for state in whole.states]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dpo", "sft", "kto", "tdpo2", "sampo", "pl_dpo", "bradley_terry", "gkd + gkd"])
def test_no_layout_changes_the_gradient(cache, name):
    forest = take(build(EVERY[name], cache, micro_batch_tokens=600))
    plain = take(build(EVERY[name], cache, micro_batch_tokens=600, layout="plain"))
    assert difference(plain.gradients[0], forest.gradients[0]) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dpo", "kto", "tdpo2"])
def test_recomputed_activations_change_nothing(cache, name):
    want = take(build(EVERY[name], cache, micro_batch_tokens=600))
    engine = build(EVERY[name], cache, micro_batch_tokens=600)
    use_gradient_checkpointing(engine.scorer.model)
    assert difference(take(engine).gradients[0], want.gradients[0]) <= 1e-5


@pytest.mark.parametrize("name", ["dpo", "kto", "tdpo2", "bradley_terry"])
def test_bfloat16_takes_the_same_step_up_to_its_rounding(cache, name):
    """Scores taken without a graph must not leave weights without one in autocast's cache."""
    want = take(build(EVERY[name], cache, micro_batch_tokens=600)).gradients[0]
    engine = build(EVERY[name], cache, micro_batch_tokens=600)
    engine.scorer.precision = "bfloat16"
    got = take(engine).gradients[0]
    assert got.keys() == want.keys()
    for key, gradient in want.items():
        assert (got[key] - gradient).norm() <= 0.1 * gradient.norm(), key
