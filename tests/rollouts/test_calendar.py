"""Which prompts a step learns from: a pure function of the step, with every prompt once in a pass."""

from __future__ import annotations

import numpy as np
import pytest

from alignzoo.objectives.builtin.dpo import DPO  # noqa: F401  (components are known)
from alignzoo.recipe.rollout import RolloutConfig
from alignzoo.recipe.schema import TrainConfig
from alignzoo.rollouts.calendar import Calendar, Turn


def calendar(rows: int = 50, batch: int = 4, prompts: int | None = 12, epochs: int = 2, **train) -> Calendar:
    config = TrainConfig.model_validate({"batch_size": batch, "optimizer": {"name": "sgd", "learning_rate": 1}} | train)
    return Calendar(config, RolloutConfig(prompts=prompts, epochs=epochs, rewards=()), rows, seed=3)


def test_a_step_is_one_update():
    one = calendar()
    assert (one.prompts, one.updates, one.steps) == (12, 6, 24)
    assert one.turn(0) == Turn(0, 0, 0)
    assert one.turn(4) == Turn(0, 1, 4)
    assert one.turn(6) == Turn(1, 0, 0)
    assert calendar(prompts=None, epochs=1).updates == 1
    assert calendar(epochs=1, max_steps=5).steps == 5
    assert Calendar(one.train.model_copy(update={"epochs": 0.5}), one.rollout, 50, 3).steps == 12
    assert Calendar(one.train, one.rollout, 12, 3).steps == 6


def test_a_pass_has_every_prompt_at_most_once_and_each_epoch_all_of_the_rollout():
    one = calendar()
    first = np.concatenate([one.prompts_of(rollout) for rollout in range(4)])
    assert len(set(first.tolist())) == 48
    assert set(one.prompts_of(4).tolist()) != set(first[:12].tolist())
    for epoch in (0, 1):
        places = np.concatenate([one.minibatch(step) for step in range(3 * epoch, 3 * epoch + 3)])
        assert sorted(places.tolist()) == list(range(12))
    assert one.minibatch(0).tolist() == [0, 1, 2, 3]
    assert one.minibatch(3).tolist() != [0, 1, 2, 3]


def test_it_depends_on_nothing_but_its_fields():
    one, again = calendar(), calendar()
    for step in (23, 7, 0, 7):
        assert one.minibatch(step).tolist() == again.minibatch(step).tolist()
        assert one.prompts_of(one.turn(step).rollout).tolist() == again.prompts_of(again.turn(step).rollout).tolist()


@pytest.mark.parametrize("step", [0, 3, 6])
def test_without_shuffling_prompts_come_in_the_order_of_the_data(step):
    one = calendar(shuffle=False)
    rollout = one.turn(step).rollout
    assert one.prompts_of(rollout).tolist() == list(range(12 * rollout, 12 * rollout + 12))
    assert one.minibatch(step).tolist() == [0, 1, 2, 3]


def test_the_progress_line_has_reward_kl_length_and_where_the_time_went():
    from alignzoo.rollouts.source import Rollouts

    source = object.__new__(Rollouts)
    source._last = {"reward": 0.51234, "kl": 1.206, "length": 24.7}
    source._times = {"drawn": 2.04, "judged": 0.06, "scored": 1.0}
    assert source.words(2.5) == ["reward 0.512", "kl 1.21", "length 25", "drawn 2.0", "judged 0.1", "learnt 3.5 s"]
