"""Judges of answers, patterns and lengths: in evaluation as in rollouts."""

from __future__ import annotations

import math
import os

import pytest
from pydantic import ValidationError

from alignzoo.core.console import Screen
from alignzoo.core.errors import UserError
from alignzoo.evaluation.judges import answers, math_answers
from alignzoo.evaluation.judges.answers import ExactMatch, Regex
from alignzoo.evaluation.judges.length import Length
from alignzoo.evaluation.judges.math_answers import Math
from alignzoo.evaluation.judging import ask, run_judge
from alignzoo.interfaces.judge import Asked, Judge
from alignzoo.registry.lookup import registry


def matched(reply: str, answer, **fields) -> float:
    return ExactMatch(**fields).scores(["p"], [reply], [{"answer": answer}])[0]


@pytest.mark.parametrize(
    ("reply", "answer", "fields", "found"),
    [
        (" 4 ", 4, {}, 1), ("4", "four", {}, 0), ("Paris", "paris", {}, 0), ("Paris", "paris", {"ignore_case": True}, 1),
        ("b", ["a", "b"], {}, 1), ("", "", {}, 1), ("2 #### 3 #### 4", "4", {"extract": r"#### (\d+)"}, 1),
        ("2 #### 3", "2", {"extract": r"#### (\d+)"}, 0), ("no mark", "no mark", {"extract": r"#### (\d+)"}, 0),
        ("x7", "7", {"extract": r"\d"}, 1),
    ],
)  # fmt: skip
def test_exact_match(reply, answer, fields, found):
    assert matched(reply, answer, **fields) == found


def test_a_row_without_an_answer_has_no_score():
    assert math.isnan(matched("x", None))
    assert math.isnan(ExactMatch().scores(["p"], ["x"])[0])
    assert ExactMatch(column="gold").columns_read() == Math(column="gold").columns_read() == ("gold",)


def test_regex():
    assert Regex(pattern="b+").scores(["p"] * 3, ["abb", "a", "b"]) == [1, 0, 1]
    assert Regex(pattern="b+", whole=True).scores(["p"] * 3, ["abb", "a", "b"]) == [0, 0, 1]
    with pytest.raises(ValidationError, match="is no regular expression"):
        Regex(pattern="(")
    with pytest.raises(ValidationError, match="is no regular expression"):
        ExactMatch(extract="[")


@pytest.mark.parametrize("judge", [Regex(pattern="(a+)+$"), ExactMatch(extract="(a+)+$")])
def test_an_expression_that_takes_any_time_is_named_by_its_judge(judge, monkeypatch):
    """The limit is one second of processor time: no busy machine reaches what 2^60 steps take."""
    monkeypatch.setattr(answers, "SECONDS", 1.0)
    with pytest.raises(UserError, match=f"judge {judge.name}: matching its regular expression took more than 1"):
        Asked(["p"], ["a" * 60 + "b"], [{"answer": "a"}]).scores_of(judge)


def test_length():
    asked = Asked(["p"] * 2, ["one two", ""], tokens=[[1, 2, 3], [4]])
    assert asked.scores_of(Length()) == [2, 0]
    assert asked.scores_of(Length(unit="characters")) == [7, 0]
    assert asked.scores_of(Length(unit="tokens")) == [3, 1]
    with pytest.raises(ValueError, match="words and characters"):
        Asked(["p"], ["one"]).scores_of(Length(unit="tokens"))
    with pytest.raises(ValidationError, match="at least as large"):
        Length(buffer=3)


def test_a_soft_limit_is_the_punishment_of_dapo():
    """Equation 13: 0 up to Lmax - Lcache, ((Lmax - Lcache) - L) / Lcache up to Lmax, -1 beyond."""

    def equation(length: int, longest: int, cache: int) -> float:
        if length <= longest - cache:
            return 0.0
        return (longest - cache - length) / cache if length <= longest else -1.0

    lengths = range(1, 30)
    found = Length(unit="tokens", limit=20, buffer=8).scores(["p"] * 29, ["r"] * 29, tokens=[[0] * n for n in lengths])
    assert found == pytest.approx([equation(n, 20, 8) for n in lengths], abs=1e-15)
    assert Length(limit=2).scores(["p"] * 3, ["a", "a b", "a b c"]) == [0, 0, -1]


def test_math_without_its_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(math_answers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'alignzoo\[math\]'"):
        Math().ready()


def test_math_compares_values():
    pytest.importorskip("math_verify")
    pairs = [
        (r"so \boxed{\frac{1}{3}}", r"$\frac{1}{3}$", 1), ("the answer is 4", 4, 1), (r"$x^2+1$", "$1+x^2$", 1),
        (r"$\frac12$", "0.5", 1), ("no", "3", 0), ("It is 5.", "4", 0),
    ]  # fmt: skip
    replies, answers, right = zip(*pairs, strict=True)
    assert Math().scores(["p"] * 6, replies, [{"answer": one} for one in answers]) == list(right)
    assert math.isnan(Math().scores(["p"], ["x"], [{"answer": "???"}])[0])


@pytest.mark.slow
def test_an_expression_without_end_is_no_match_and_costs_no_other(monkeypatch):
    pytest.importorskip("math_verify")
    monkeypatch.setattr(math_answers, "SECONDS", 2.0)
    found = Math().scores(["p"] * 3, ["9**9**9**9**9", "3", "4"], [{"answer": "3"}] * 3)
    assert found == [0, 1, 0]


def test_what_ends_the_child_is_no_match_and_the_rest_stay_together(monkeypatch):
    """Two such replies among fifty cost two children each, beside the last one."""
    compare, children = math_answers.in_child, []

    def equal(gold, reply, digits):
        if reply in ("r7", "r49"):
            os._exit(3)
        return None if reply == "r3" else float(int(reply[1:]) % 2 == 0)

    monkeypatch.setattr(math_answers, "import_module", lambda name: None)
    monkeypatch.setattr(math_answers, "_equal", equal)
    monkeypatch.setattr(math_answers, "in_child", lambda *a, **k: children.append(1) or compare(*a, **k))
    found = math_answers.compared([("g", f"r{n}") for n in range(50)], 6)
    want = [None if n == 3 else 0.0 if n in (7, 49) else float(n % 2 == 0) for n in range(50)]
    assert list(found.values()) == want
    assert len(children) == 4  # up to r7, r7, up to r49, r49


class Finished(Judge):
    """1 for a finished reply."""

    name = "finished"

    def scores(self, prompts, replies, finished=()):
        return [float(one) for one in finished] or [0.5] * len(replies)


def test_evaluation_knows_answers_and_what_was_cut():
    lines = [
        {"before": "a", "after": "b", "chosen": "b", "before_finished": True, "after_finished": False},
        {"before": "c", "after": "d", "chosen": "x", "before_finished": True, "after_finished": True},
    ]
    columns = [{"answer": "b"}, {"answer": "d"}]
    figures = run_judge(ExactMatch(), ["p", "q"], lines, Screen(quiet=True), columns)
    assert (figures["reward_before"], figures["reward"], figures["win_rate_over_chosen"]) == (0, 1, 0.75)
    figures = run_judge(Finished(), ["p", "q"], lines, Screen(quiet=True))
    assert (figures["reward_before"], figures["reward"]) == (1, 0.5)
    asked = Asked(["p", "q"], ["b", "e"], columns, [True, False])
    assert ask(ExactMatch(), asked, ["b", None], None, print) == [{"reward": 1, "over_chosen": 0.5}, {"reward": 0}]


def test_the_registry_offers_them():
    assert {"exact_match", "regex", "length", "math"} <= set(registry().known("judge"))
