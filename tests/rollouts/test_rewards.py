"""What a judge may return, and what its scores become: 0 is a reward, NaN and None are not."""

from __future__ import annotations

import math
import statistics
from typing import Any

import numpy as np
import pytest

from alignzoo.core.errors import RunFailed
from alignzoo.interfaces.judge import Asked, Judge
from alignzoo.recipe.rewards import Reward
from alignzoo.recipe.rollout import RolloutConfig
from alignzoo.rollouts.draw import Draws
from alignzoo.rollouts.figures import figures
from alignzoo.rollouts.rewards import combine, score

NAN = math.nan


class Given(Judge):
    """Returns what it was made with."""

    name = "given"
    answer: object = None

    def scores(self, prompts, replies):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def given(*answer) -> Reward:
    return Reward(judge=Given.model_construct(answer=list(answer)))


def config(*rewards: Reward, **more) -> RolloutConfig:
    return RolloutConfig.model_construct(**(RolloutConfig(rewards=()).model_dump() | {"rewards": rewards} | more))


def combined(raw, finished=None, weights=(1.0,), clip=None, names=("a", "b"), **more):
    rewards = [Reward(judge=Given(), weight=weight, clip=clip) for weight in weights]
    finished = np.ones(len(raw[0]), bool) if finished is None else np.array(finished)
    return combine(np.array(raw, float), finished, config(*rewards, **more), names, "step 3: ")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([1.0], "returned 1 scores for 2 replies"), ([0.5, None], "returned None, for the reply 'no'"),
        ([0.5, "0.5"], "returned '0.5'"), ([math.inf, 1], "is infinite, for the reply 'yes'"), ([1, [2]], r"returned \[2\]"),
        ([True, 1.0], "returned True"),
    ],
)  # fmt: skip
def test_a_judge_that_is_wrong_stops_the_run(answer, words):
    with pytest.raises(RunFailed, match=f"step 3: the reward given {words}"):
        score([given(*answer)], Asked(["p", "q"], ["yes", "no"]), "step 3: ")


def test_a_judge_that_fails_is_named_with_its_line():
    with pytest.raises(RunFailed, match=r"step 1: the reward given raised KeyError: 'x' \(.*test_rewards\.py:\d+\)"):
        score([Reward(judge=Given.model_construct(answer=KeyError("x")))], Asked(["p"], ["r"]), "step 1: ")


class Exact(Judge):
    """1 for the row's answer, if the reply is finished."""

    name = "exact"

    def scores(self, prompts, replies, columns=(), finished=()):
        return [
            float(done and reply == row["answer"]) for reply, row, done in zip(replies, columns, finished, strict=True)
        ]


def test_a_judge_that_takes_them_is_given_the_rows_columns_and_who_was_cut():
    asked = Asked(["p"] * 3, ["4", "5", "4"], [{"answer": "4"}] * 3, [True, True, False])
    assert score([Reward(judge=Exact())], asked, "").tolist() == [[1.0, 0.0, 0.0]]


class Waits(Judge):
    """Returns a coroutine, and is no coroutine function."""

    name = "waits"

    def scores(self, prompts, replies):
        async def wait():
            return [float(len(reply)) for reply in replies]

        return wait()


def test_a_judge_waits_by_what_it_returns():
    asked = Asked(["p"] * 2, ["a", "bb"])
    assert score([Reward(judge=Waits()), given(0, 1)], asked, "").tolist() == [[1, 2], [0, 1]]
    assert list(asked.scores_of(Waits())) == [1, 2]
    with pytest.raises(RunFailed, match="the reward given raised"):  # and no warning of a coroutine that never ran
        score([Reward(judge=Waits()), Reward(judge=Given.model_construct(answer=KeyError("x")))], asked, "")


class Longer(Judge):
    """Prefers the longer reply, has no verdict on a question, and gives no scores."""

    name = "longer"
    wrong: Any = None

    def prefers(self, prompts, first, second):
        if self.wrong is not None:
            return [self.wrong] * len(first)
        return [
            NAN if "?" in a + b else 0.5 + 0.5 * ((len(a) > len(b)) - (len(a) < len(b)))
            for a, b in zip(first, second, strict=True)
        ]


def test_a_judge_that_compares_gives_the_share_of_the_prompts_other_draws_that_it_prefers_a_draw_to():
    replies = ["a", "bbb", "cc", "dd", "?", "e", "?", "??", "?"]
    found = score([Reward(judge=Longer())], Asked(["p"] * 3 + ["q"] * 3 + ["r"] * 3, replies), "", each=3)
    assert found[0].tolist()[:4] == [0.0, 1.0, 0.5, 1.0]
    assert np.isnan(found[0]).tolist() == [False] * 4 + [True, False, True, True, True]
    assert found[0, 5] == 0.0
    with pytest.raises(RunFailed, match=r"step 2: the reward longer returned 1\.5; expected a number from 0 to 1"):
        score([Reward(judge=Longer(wrong=1.5))], Asked(["p"] * 2, ["a", "b"]), "step 2: ", each=2)


@pytest.mark.parametrize(("verdict", "want"), [(np.float32(0.25), 0.25), (True, 1.0), (np.bool_(False), 0.0)])
def test_a_verdict_is_a_number_of_any_type_or_a_boolean(verdict, want):
    asked = Asked(["p"] * 2, ["a", "b"])
    found = score([Reward(judge=Longer.model_construct(wrong=verdict))], asked, "", each=2)
    assert found.tolist() == [[want, 1 - want]]
    for wrong in ("1", [1], np.float32(1.5)):
        with pytest.raises(RunFailed, match="expected a number from 0 to 1, or NaN"):
            score([Reward(judge=Longer.model_construct(wrong=wrong))], asked, "", each=2)


def test_scores_are_raw_and_by_judge():
    raw = score([given(1, NAN), given(-2.5, np.float32(0))], Asked(["p", "q"], ["yes", "no"]), "")
    assert raw[0].tolist()[:1] == [1.0]
    assert np.isnan(raw[0, 1])
    assert raw[1].tolist() == [-2.5, 0.0]


def test_a_reward_of_zero_is_a_reward_and_nan_is_none():
    one = combined([[0.0, NAN, 1.0, 0.0], [NAN, 2.0, -1.0, NAN]], weights=(1.0, 0.5))
    assert one.reward.tolist() == [[0.0, 1.0], [0.5, 0.0]]
    assert one.kept.all()


def test_a_completion_without_any_score_is_an_error_or_left_out():
    with pytest.raises(
        RunFailed, match=r"step 3: no reward \(given\) applies to a completion of row b; rollout\.missing=drop"
    ):
        combined([[1.0, 2.0, NAN, 4.0]])
    one = combined([[1.0, 2.0, NAN, 4.0]], missing="drop")
    assert one.kept.tolist() == [[True, True], [False, True]]
    assert one.reward.tolist() == [[1.0, 2.0], [0.0, 4.0]]


def test_a_weight_of_zero_records_and_does_not_count():
    one = combined([[1.0, 2.0], [NAN, 50.0]], weights=(2.0, 0.0), names=("a",))
    assert one.reward.tolist() == [[2.0, 4.0]]
    with pytest.raises(RunFailed, match=r"no reward \(given\) applies"):
        combined([[NAN, 2.0], [3.0, 50.0]], weights=(2.0, 0.0), names=("a",))


def test_a_clip_limits_each_score():
    assert combined([[7.0, -7.0]], clip=3.0, weights=(2.0,), names=("a",)).reward.tolist() == [[6.0, -6.0]]


@pytest.mark.parametrize(
    ("rule", "reward", "kept"),
    [("keep", [1.0, 2.0], [1, 1]), ("penalty", [1.0, -1.0], [1, 1]), ("drop", [1.0, 0.0], [1, 0])],
)
def test_what_a_cut_completion_gets_is_declared(rule, reward, kept):
    one = combined([[1.0, 2.0]], [True, False], names=("a",), unfinished=rule, penalty=3.0)
    assert one.reward.tolist() == [reward]
    assert one.kept.tolist() == [[bool(k) for k in kept]]


def test_figures_are_over_what_is_kept_and_say_what_is_not():
    raw = np.array([[1.0, 1.0, 2.0, NAN, 5.0, 5.0]])
    judged = combined(
        raw, [True, True, True, True, False, True], names=("a", "b", "c"), missing="drop", unfinished="drop"
    )
    draws = Draws(np.arange(12, dtype=np.int32), np.arange(0, 14, 2), np.array([1, 1, 1, 1, 0, 1], bool), np.zeros(6))
    found = figures(draws, raw, judged, [Reward(judge=Given())])
    assert found["reward"] == pytest.approx((1 + 1 + 2 + 5) / 4)
    assert found["reward_given"] == pytest.approx((1 + 1 + 2 + 5 + 5) / 5)
    assert found["reward_given_missing"] == pytest.approx(1 / 6)
    assert (found["length"], found["no_spread"]) == (2.0, 1.0)
    assert found["unfinished"] == pytest.approx(1 / 6)
    assert found["left_out"] == pytest.approx(2 / 6)
    assert found["reward_se"] == pytest.approx(statistics.stdev([1, 2, 5]) / math.sqrt(3))


def standardized(values: list[float]) -> list[float]:
    mean = statistics.mean(values)
    return [(value - mean) / (statistics.stdev(values) + 1e-4) for value in values]


def test_rewards_normalized_by_themselves_are_summed_as_in_trl():
    """`normalize_then_sum` of TRL 1.16: each reward by its group's mean and standard deviation + 1e-4."""
    raw = [[1.0, 2.0, 6.0, 5.0, 5.0, 5.0], [10.0, NAN, 30.0, 0.0, 1.0, 5.0]]
    rewards = [Reward(judge=Given(), weight=2.0, normalize="group"), Reward(judge=Given(), normalize="group")]
    one = combine(np.array(raw), np.ones(6, bool), config(*rewards), ("a", "b"))
    first, second = standardized([1, 2, 6]), standardized([10, 30])
    expected = [2 * first[0] + second[0], 2 * first[1], 2 * first[2] + second[1], *standardized([0, 1, 5])]
    assert one.reward.ravel().tolist() == pytest.approx(expected)
    plain = combine(np.array(raw), np.ones(6, bool), config(*rewards), ("a", "b"), normalize=False)
    assert plain.reward[0].tolist() == [12.0, 4.0, 42.0]


def test_normalization_over_a_rollout_is_after_the_clip_and_without_what_is_left_out():
    reward = Reward(judge=Given(), clip=4.0, normalize="rollout")
    finished = np.array([True, True, True, False])
    one = combine(np.array([[1.0, 9.0, 2.0, 50.0]]), finished, config(reward, unfinished="drop"), ("a", "b"))
    assert one.reward.ravel().tolist() == pytest.approx([*standardized([1, 4, 2]), 0.0])
    alone = combine(np.array([[3.0, NAN]]), np.ones(2, bool), config(reward, missing="drop"), ("a", "b"))
    assert alone.reward.tolist() == [[0.0], [0.0]]
