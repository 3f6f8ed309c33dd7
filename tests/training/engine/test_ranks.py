"""Two processes take the step that one takes: every objective, gloo on the CPU, one pair of processes for all."""

from __future__ import annotations

import pytest
import torch
from ranks import all_steps, of_two
from steps import difference, every

NAMES = [*every(), "few rows", "uneven", "rare"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return all_steps(tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return of_two(tmp_path_factory.mktemp("two"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_take_the_step_of_one(alone, two, name):
    one, (first, second) = alone[name], (rank[name] for rank in two)
    for step, want in enumerate(one.gradients):
        assert difference(first.gradients[step], want) <= 1e-5
        assert first.metrics[step] == pytest.approx(one.metrics[step], rel=1e-4, abs=1e-5)
    assert difference(first.parameters, one.parameters) <= 1e-5  # the moving reference's among them
    assert first.states == [pytest.approx(state, rel=1e-4) for state in one.states]
    assert first.parameters.keys() == second.parameters.keys()
    assert all(torch.equal(first.parameters[key], value) for key, value in second.parameters.items())
    assert first.states == second.states
    assert first.metrics == second.metrics


@pytest.mark.slow
def test_a_parameter_that_one_rank_never_uses_has_the_gradient_of_the_others(alone, two):
    wanted = alone["rare"].gradients[0]["rare"]
    assert wanted.abs() > 0
    assert all(torch.allclose(rank["rare"].gradients[0]["rare"], wanted) for rank in two)
