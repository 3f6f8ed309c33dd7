"""A chat judge of single replies: parsed, cached, asked at a time, and kept when the endpoint dies."""

from __future__ import annotations

import math
import re
import threading

import pytest
from evaluation.judges.server import Answer
from pydantic import ValidationError

from alignzoo.core.errors import RunFailed
from alignzoo.evaluation.judges.chat_score import ChatScore
from alignzoo.interfaces.judge import Asked
from alignzoo.recipe.rewards import Reward
from alignzoo.rollouts.rewards import score

PROMPTS = ["Hello", "Hello", [{"role": "user", "content": "Bye"}]]
REPLIES = ["Hi!", "Good morning to you!", "See you."]


def by_length(asked, before: int) -> Answer:
    reply = re.search(r"\[Reply\]\n(.*?)\n\n\[End", asked.question, re.DOTALL)[1]
    return Answer(f"It is fine.\nScore: {min(10, len(reply))}")


def judge(**fields) -> ChatScore:
    return ChatScore(**{"model": "judge-1", "backoff": 0.001, "timeout": 30} | fields)


def scores(prompts=PROMPTS, replies=REPLIES, **fields) -> list[float]:
    return list(Asked(prompts, replies).scores_of(judge(**fields)))


def test_replies_are_scored_once(serve):
    server = serve()
    assert scores() == [3, 10, 8]
    assert scores([*PROMPTS, "Hello"], [*REPLIES, "Hi!"]) == [3, 10, 8, 3]
    assert len(server.asked) == 3
    assert "from 1 (worst) to 10 (best)" in server.asked[0].question
    assert any("[Conversation]\nUser: Bye\n" in one.question for one in server.asked)
    assert scores(high=5) != [3, 10, 8]  # another question
    bare = {"question": "Good?\n[Reply]\n{reply}\n\n[End]"}  # names no scale
    assert scores(**bare) == [3, 10, 8]
    assert [math.isnan(one) for one in scores(high=5, **bare)] == [False, True, True]
    assert judge().prefers(PROMPTS[:1], ["Hi!"], ["Good morning to you!"]) == [0.0]


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("7", 7), ("**7.5**", 7.5), ("Rating: [[6]]", 6), ("7/10", 7), ("A 3, no: [[2]] or [[4]].", 4), ("score: 8.", 8),
        ("8 / 10.0", 8), ("4/5", None), ("Score: 40/100", None),
        ("I give it 7 out of 10, or 8", None), ("11", None), ("", None), ("good", None),
    ],
)  # fmt: skip
def test_an_answer_without_a_number_of_the_scale_is_asked_for_again(serve, answer, found):
    server = serve(lambda asked, before: Answer(answer))
    (value,) = scores(["p"], ["r"])
    assert math.isnan(value) if found is None else value == found
    assert len(server.asked) == (2 if found is None else 1)


def test_a_judge_with_its_fields_wrong_is_an_error():
    with pytest.raises(ValidationError, match=r"lacks \{reply\}"):
        judge(question="How good? {prompt}")
    with pytest.raises(ValidationError, match="low must be below high"):
        judge(low=3, high=3)


def test_rewards_of_endpoints_wait_at_the_same_time(serve):
    """Two judges with one question each: neither is answered before both have asked."""
    both = threading.Barrier(2)

    def together(asked, before: int) -> Answer:
        both.wait(60)
        return Answer("5")

    serve(together)
    rewards = [Reward(judge=judge(model=name)) for name in ("a", "b")]
    assert score(rewards, Asked(["p"], ["r"]), "").tolist() == [[5.0], [5.0]]


def test_an_endpoint_that_dies_in_the_middle_names_step_and_reward_and_loses_no_verdict(serve):
    asked = Asked(["p"] * 6, [f"reply {n}" for n in range(6)])
    server = serve(lambda one, before: Answer("4") if before < 3 else Answer(status=0))
    with pytest.raises(
        RunFailed, match=r"step 7: the reward chat_score raised ConnectionError: .*closed the connection"
    ):
        score([Reward(judge=judge(parallel=1, retries=0))], asked, "step 7: ")
    assert len(server.asked) == 4
    again = serve(lambda one, before: Answer("4"))
    again_url = Reward(judge=judge(parallel=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ChatScore, "address", lambda self: server.url + "/chat/completions")  # the cache's key
        assert score([again_url], asked, "step 7: ").tolist() == [[4.0] * 6]
    assert len(again.asked) == 3
