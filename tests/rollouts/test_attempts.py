"""Prompts whose draws teach nothing are left out, and others are drawn for in their place."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from alignzoo.core.errors import RunFailed
from alignzoo.interfaces.judge import Judge
from alignzoo.recipe.rewards import Reward
from alignzoo.recipe.rollout import RolloutConfig
from alignzoo.recipe.schema import TrainConfig
from alignzoo.rollouts.attempts import Attempt, Attempts
from alignzoo.rollouts.calendar import Calendar, Turn
from alignzoo.rollouts.draw import Draws
from alignzoo.rollouts.folder import RolloutFolder
from alignzoo.rollouts.rewards import Judged

TRAIN = TrainConfig.model_validate({"batch_size": 4, "optimizer": {"name": "sgd", "learning_rate": 1}})


def attempt(places, spread) -> Attempt:
    """Two draws of each prompt, with different rewards where there is spread."""
    places = np.array(places, np.int64)
    reward = np.array([[p, p + 0.5 * spread(p)] for p in places.tolist()]).reshape(-1, 2)
    tokens = np.repeat(places, 2).astype(np.int32)
    draws = Draws(tokens, np.arange(len(tokens) + 1), np.ones(len(tokens), bool), np.zeros(len(tokens)))
    return Attempt(places, draws, Judged(reward, np.ones_like(reward, bool)), reward.reshape(1, -1))


def made(spread, rows: int = 20, attempts: int = 3):
    """The attempts at the first rollout, and the prompts that are learnt from; -1 where none is left."""
    config = RolloutConfig(completions=2, max_attempts=attempts)
    calendar = Calendar(TRAIN, config, rows, seed=3)
    maker = Attempts(SimpleNamespace(rollout=config, drawing=config), calendar, *[None] * 8)
    maker.attempt = lambda rollout, number, places, *_: attempt(places, spread)
    found, places = maker.make(Turn(0, 0, 0), "", None)
    whole = Attempt.join(found)
    return found, [int(whole.places[p]) if p >= 0 else -1 for p in places.tolist()]


def test_replacements_are_seeded_by_attempt_and_were_not_used():
    one = Calendar(TRAIN, RolloutConfig(max_attempts=5), 12, seed=3)
    used = one.prompts_of(2)
    second = one.replacements(2, 1, used, 3)
    assert second.tolist() == one.replacements(2, 1, used, 3).tolist()
    assert len(set(second.tolist()) | set(used.tolist())) == 7
    assert one.replacements(2, 1, used, 8).tolist() != one.replacements(2, 2, used, 8).tolist()
    assert one.replacements(2, 1, used, 8).tolist() != one.replacements(3, 1, used, 8).tolist()
    assert len(one.replacements(2, 1, used, 100)) == 8


def test_a_rollout_is_filled_in_place():
    found, learnt = made(lambda p: p % 2)
    first = found[0].places.tolist()
    assert len(found) > 1
    assert [len(one.places) for one in found][1] == sum(p % 2 == 0 for p in first)
    for place, prompt in zip(learnt, first, strict=True):
        assert place == prompt if prompt % 2 else place % 2
    used = np.concatenate([one.places for one in found])
    assert len(set(used.tolist())) == len(used)


def test_attempts_end_and_what_is_missing_stays_empty():
    found, learnt = made(lambda p: 0)
    assert len(found) == 3
    assert learnt == [-1] * 4
    found, learnt = made(lambda p: 0, rows=6, attempts=9)
    assert [len(one.places) for one in found] == [4, 2]  # there are no more prompts
    assert len(made(lambda p: 1)[0]) == 1


def test_a_single_attempt_keeps_every_prompt():
    found, learnt = made(lambda p: 0, attempts=1)
    assert learnt == found[0].places.tolist()


def test_joined_attempts_and_parts_of_them_keep_draws_with_their_prompts():
    whole = Attempt.join([attempt([3, 5], lambda p: 1), attempt([8], lambda p: 0)])
    part = whole.take(np.array([2, 0]))
    assert part.places.tolist() == [8, 3]
    assert [tokens.tolist() for tokens in part.draws] == [[8], [8], [3], [3]]
    assert part.judged.reward.tolist() == [[8, 8], [3, 3.5]]
    assert part.raw.tolist() == [[8, 8, 3, 3.5]]
    second = part.only(np.array([1]))
    assert second.judged.reward.tolist() == [[8], [3.5]]
    assert [tokens.tolist() for tokens in second.draws] == [[8], [3]]
    nothing = whole.take(np.array([], np.int64))
    assert len(nothing.draws) == 0
    assert nothing.draws.cuts.dtype == np.int64


def test_left_out_draws_make_no_spread():
    judged = Judged(
        np.array([[1.0, 0.0, 1.0], [1.0, 0.0, 2.0], [0.0, 0.0, 0.0]]), np.array([[1, 0, 1], [1, 0, 1], [0, 0, 0]], bool)
    )
    assert judged.has_spread.tolist() == [False, True, False]


@pytest.mark.parametrize("kept", [[[1, 1]], [[1, 0]]])
def test_parts_of_judged_draws(kept):
    assert Judged(np.array([[1.0, 2.0]]), np.array(kept, bool)).only(np.array([1])).kept.tolist() == [
        [bool(kept[0][1])]
    ]


@pytest.mark.parametrize("lacking", ["", "greedy "])
def test_a_missing_score_is_not_kept_and_is_asked_for_again(tmp_path, lacking):
    """A judge has no answer at first. The next start has one, and nothing is drawn again."""

    class Given(Judge):
        """Its scores are given below."""

        name = "given"

        def scores(self, prompts, replies):
            raise AssertionError

    config = RolloutConfig(completions=2, rewards=(Reward(judge=Given()),))
    recipe = SimpleNamespace(drawing=config, objective=SimpleNamespace(greedy_baseline=True))
    model = SimpleNamespace(get_input_embeddings=lambda: SimpleNamespace(num_embeddings=9))
    prompts = SimpleNamespace(ids=lambda places: [str(place) for place in places])
    ending = SimpleNamespace(texts=lambda replies: ["text"] * len(replies))
    maker = Attempts(recipe, None, SimpleNamespace(model=model), None, None, prompts, None, None, None, ending)
    folder, places, made = RolloutFolder(tmp_path, "1"), np.array([3, 5]), []
    draws = attempt(places, lambda p: 1).draws
    arrays = draws.arrays() | {f"greedy {name}": one for name, one in draws.take(np.array([0, 2])).arrays().items()}
    maker._draw = lambda *_: made.append(1) or arrays
    maker._lines = lambda *_: []
    answers = {"": [[0.0, 1.0, 2.0, 3.0]], "greedy ": [[4.0, 5.0]]}

    def start(answers) -> Attempt:
        maker.scores = lambda prompts, places, draws, *_: np.array(answers["" if len(draws) == 4 else "greedy "])
        return maker.attempt(0, 0, places, "step 1: ", lambda number, *phase: folder.phase(0, *phase))

    missing = [[np.nan, *answers[lacking][0][1:]]]
    with pytest.raises(RunFailed, match=r"step 1: no reward \(given\) applies to a completion of row 3"):
        start(answers | {lacking: missing})
    for known in (answers, None):  # and then it is kept
        found = start(known)
        assert found.judged.reward.tolist() == [[0, 1], [2, 3]]
        assert found.greedy_reward.tolist() == [4, 5]
    assert made == [1]
